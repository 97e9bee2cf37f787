"""Phase II of Algorithm 1: the last layer by AdamW, measured against its optimum.

The first layer stays as Phase I left it, so the hidden activations are computed once
and the problem is a logistic regression over theta_2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coala_core.config import FinetuneConfig
from coala_core.cvxnn.network import Head
from coala_core.losses import pairwise_loss, pointwise_loss
from coala_core.metrics import pair_metrics
from coala_core.optimum import Optimum, OptimumStatus, find_optimum
from coala_core.pairs import PairFeatures, require_same_width, require_separate_groups
from coala_core.progress import Progress, silent

FloatArray = NDArray[np.float64]
History = list[dict[str, float]]

_SATURATED_LOSS = 0.01


class FinetuneStatus(StrEnum):
    """How the epochs of AdamW ended, each with its remedy."""

    FINISHED = "All epochs ran."
    NOT_FINITE = "The loss left the finite numbers, the epochs before that are kept. Lower `finetune.learning_rate`."


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """Tuned head, its epochs and its distance to the optimum of the same objective.

    The fields from `optimality_gap` on compare with the optimum and are None where
    `optimum_status` is `UNBOUNDED`.
    """

    head: Head
    """Phase I's first layer with the kept last layer, rounded to float32."""
    history: History
    """Metrics of every epoch, from epoch 0, the Phase I head."""
    kept_epoch: int
    """Epoch whose last layer `head` holds."""
    status: FinetuneStatus
    """How AdamW ended."""
    warnings: list[str]
    """One sentence each; empty where nothing is to be said."""
    optimum_status: OptimumStatus
    """How the search for the optimum ended."""
    optimum_objective: float | None
    """Lowest training objective."""
    optimum_gradient_norm: float | None
    """Norm of the objective's gradient at the optimum found."""
    optimality_gap: float | None
    """Training objective after AdamW's last epoch minus the lowest one."""
    relative_gap: float | None
    """`optimality_gap` over the lowest objective."""
    distance: float | None
    """||theta - theta*|| / ||theta*|| after the last epoch; None also where theta* is zero."""
    kept_optimality_gap: float | None
    """As `optimality_gap`, for the kept epoch."""
    kept_relative_gap: float | None
    """As `relative_gap`, for the kept epoch."""
    kept_distance: float | None
    """As `distance`, for the kept epoch."""

    def report(self) -> dict[str, object]:
        """Return everything but the head and the history as plain JSON values."""
        left_out = {"head", "history", "status", "optimum_status"}
        plain = {name: value for name, value in vars(self).items() if name not in left_out}
        return {"status": self.status.name, "optimum_status": self.optimum_status.name, **plain}


@dataclass(frozen=True)
class _Hidden:
    """Hidden activations of both responses of n pairs."""

    chosen: Tensor  # (n, m) float64
    rejected: Tensor  # (n, m) float64


def finetune_head(
    head: Head,
    train: PairFeatures,
    validation: PairFeatures,
    config: FinetuneConfig,
    progress: Progress | None = None,
) -> FinetuneResult:
    r"""Tune the last layer of a Phase I head on preference pairs (Algorithm 1, Phase II).

    Minimises, over theta_2 alone and by AdamW in mini-batches,

        mean_i log(1 + exp(gamma - beta (h_w,i - h_l,i))) + ridge/2 ||theta_2||^2     (eq. 8, pairwise)
        mean_i log(1 + exp(gamma - beta y_i h_i)) + ridge/2 ||theta_2||^2             (eq. 9, pointwise)

    of Feng & Pilanci (2026), h = theta_2 . (Theta_1 x + b)_+. The ridge is ours: it keeps the
    optimum finite on separable pairs. Newton's method finds that optimum as well, so the
    result says how far AdamW stopped from it.

    Arithmetic is float64 on the CPU: the parameter is one short vector, so this costs
    little and rounding stays far below the gaps reported. The same seed gives the same bytes on
    one machine, whatever the order of the rows: pairs are taken in the order of their ids.

    Parameters
    ----------
    head : Head
        Outcome of Phase I, m neurons over d features.
    train, validation : PairFeatures
        Pairs to fit, and pairs to choose the epoch with; no group in both.
    config : FinetuneConfig
        Loss, beta, gamma, ridge, AdamW's settings, the rule of the kept epoch and the seed.
    progress : Progress, optional
        Called after every epoch with unit "epochs".

    Returns
    -------
    FinetuneResult
        History per epoch, from epoch 0: ``epoch``, ``loss``, ``objective`` (loss and ridge) and
        the names of `pair_metrics`, for training pairs; all but the first and third with
        prefix ``eval_`` for validation pairs. `config.keep` = "best" keeps the epoch of
        lowest ``eval_loss``, the earliest of equals.

    Raises
    ------
    ValueError
        If the head has no neuron, widths disagree, or the splits share a group.
    """
    _require_neurons(head)
    require_same_width("finetune_head", head.first_weight.shape[1], train=train, validation=validation)
    require_separate_groups("finetune_head", train=train, validation=validation)
    hidden = _activations(head, train)
    with _one_thread():
        weights, history = _descend(head, hidden, _activations(head, validation), config, progress or silent)
    kept = _kept_epoch(history, config)
    optimum = find_optimum(_signed_rows(hidden, config), config.gamma, config.ridge)
    status = FinetuneStatus.FINISHED if len(history) == config.epochs + 1 else FinetuneStatus.NOT_FINITE
    return FinetuneResult(
        head=replace(head, second_weight=weights[kept].astype(np.float32)),
        history=history,
        kept_epoch=kept,
        status=status,
        warnings=_warnings(history, kept, config),
        optimum_status=optimum.status,
        **_comparison(weights, history, kept, optimum),
    )


def _require_neurons(head: Head) -> None:
    """Refuse the zero head, whose objective is constant."""
    if not head.second_weight.size:
        raise ValueError(
            "`finetune_head(head=...)` must have at least one neuron, got 0; lower the group-lasso weight of Phase I."
        )


def _activations(head: Head, pairs: PairFeatures) -> _Hidden:
    """Hidden activations of pairs in the order of their ids, in float64."""
    ordered = pairs.sorted_by_id()
    chosen, rejected = head.hidden(ordered.chosen), head.hidden(ordered.rejected)
    return _Hidden(torch.from_numpy(chosen), torch.from_numpy(rejected))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold torch to one thread: the steps are too small to share, and waking threads dominates on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _loss_function(hidden: _Hidden, config: FinetuneConfig) -> tuple[int, Callable[[Tensor, Tensor | slice], Tensor]]:
    """Return the number of rows, pairs or responses, and the mean loss of theta_2 on some of them."""
    if config.loss == "pairwise":
        return len(hidden.chosen), lambda theta, rows: pairwise_loss(
            hidden.chosen[rows] @ theta, hidden.rejected[rows] @ theta, config.beta, config.gamma
        )
    responses = torch.cat([hidden.chosen, hidden.rejected])
    labels = torch.ones(len(responses), dtype=torch.float64)
    labels[len(hidden.chosen) :] = -1
    return len(responses), lambda theta, rows: pointwise_loss(
        responses[rows] @ theta, labels[rows], config.beta, config.gamma
    )


def _signed_rows(hidden: _Hidden, config: FinetuneConfig) -> FloatArray:
    """Rows a_i of `coala_core.optimum` for the loss in use."""
    if config.loss == "pairwise":
        rows = hidden.chosen - hidden.rejected
    else:
        rows = torch.cat([hidden.chosen, -hidden.rejected])
    return config.beta * rows.numpy()


def _descend(
    head: Head, hidden: _Hidden, validation: _Hidden, config: FinetuneConfig, progress: Progress
) -> tuple[list[FloatArray], History]:
    """Last layer and metrics of every epoch, up to the last finite one."""
    theta = torch.nn.Parameter(torch.from_numpy(head.second_weight.astype(np.float64)))
    optimiser = torch.optim.AdamW([theta], lr=config.learning_rate, weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    rows, loss = _loss_function(hidden, config)
    weights, history = [theta.detach().numpy().copy()], [_measure(0, theta, hidden, validation, config)]
    for epoch in range(1, config.epochs + 1):
        order = torch.from_numpy(rng.permutation(rows))
        for start in range(0, rows, config.batch_size):
            batch = order[start : start + config.batch_size]
            objective = loss(theta, batch) + config.ridge / 2 * theta.dot(theta)
            (theta.grad,) = torch.autograd.grad(objective, theta)
            optimiser.step()
        measured = _measure(epoch, theta, hidden, validation, config)
        if not np.isfinite(list(measured.values())).all():
            break
        weights.append(theta.detach().numpy().copy())
        history.append(measured)
        progress(epoch, config.epochs, "epochs")
    return weights, history


@torch.no_grad()
def _measure(
    epoch: int, theta: Tensor, hidden: _Hidden, validation: _Hidden, config: FinetuneConfig
) -> dict[str, float]:
    """One entry of the history."""
    train_metrics = _loss_and_metrics(theta, hidden, config)
    validation_metrics = _loss_and_metrics(theta, validation, config)
    return {
        "epoch": float(epoch),
        "objective": train_metrics["loss"] + config.ridge / 2 * float(theta.dot(theta)),
        **train_metrics,
        **{f"eval_{name}": value for name, value in validation_metrics.items()},
    }


def _loss_and_metrics(theta: Tensor, hidden: _Hidden, config: FinetuneConfig) -> dict[str, float]:
    """Loss and `pair_metrics` over all pairs."""
    _, loss = _loss_function(hidden, config)
    chosen, rejected = hidden.chosen @ theta, hidden.rejected @ theta
    return {"loss": float(loss(theta, slice(None))), **pair_metrics(chosen.numpy(), rejected.numpy(), config.beta)}


def _kept_epoch(history: History, config: FinetuneConfig) -> int:
    """Epoch that `config.keep` names."""
    if config.keep == "last":
        return len(history) - 1
    return int(np.argmin([entry["eval_loss"] for entry in history]))


def _comparison(weights: list[FloatArray], history: History, kept: int, optimum: Optimum) -> dict[str, float | None]:
    """Fields of the result that compare the last and the kept epoch with the optimum."""
    exists = optimum.status is not OptimumStatus.UNBOUNDED
    length = float(np.linalg.norm(optimum.weights))
    fields: dict[str, float | None] = {
        "optimum_objective": optimum.objective if exists else None,
        "optimum_gradient_norm": optimum.gradient_norm if exists else None,
    }
    for prefix, epoch in (("", len(history) - 1), ("kept_", kept)):
        gap = history[epoch]["objective"] - optimum.objective
        distance = float(np.linalg.norm(weights[epoch] - optimum.weights))
        fields[f"{prefix}optimality_gap"] = gap if exists else None
        fields[f"{prefix}relative_gap"] = gap / optimum.objective if exists else None
        fields[f"{prefix}distance"] = distance / length if exists and length else None
    return fields


def _warnings(history: History, kept: int, config: FinetuneConfig) -> list[str]:
    """Sentences about a saturated fit and about the kept epoch."""
    sentences = []
    last = history[-1]
    if last["rewards/accuracies"] == 1 and last["loss"] < _SATURATED_LOSS:
        sentences.append(
            f"The head is saturated: it orders every training pair with a loss of {last['loss']:.2g}; "
            "raise `finetune.ridge` or train on more pairs."
        )
    if config.keep == "best" and kept == 0:
        sentences.append(
            "No epoch had a lower validation loss than the Phase I head, which is kept; "
            "lower `finetune.learning_rate` or raise `finetune.ridge`."
        )
    elif config.keep == "best" and kept == config.epochs:
        sentences.append(
            "The validation loss was lowest at the last epoch; raise `finetune.epochs` or `finetune.learning_rate`."
        )
    return sentences
