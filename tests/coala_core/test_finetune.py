"""Phase II: what moves, what does not, and how far it stops from its optimum."""

import json
from dataclasses import replace

import cvxpy
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from coala_core.config import FinetuneConfig
from coala_core.cvxnn.network import Head
from coala_core.finetune import FinetuneStatus, OptimumStatus, finetune_head
from coala_core.pairs import PairFeatures
from tests.dense import gated_score

WIDTH, NEURONS = 5, 4


def make_pairs(name, n=60, signal=0.6, seed=0):
    """Pairs of Gaussian features whose chosen responses are shifted by `signal`."""
    rng = np.random.default_rng(seed)
    return PairFeatures(
        pair_ids=[f"{name}-{i:03d}" for i in range(n)],
        groups=[f"{name}-{i // 3}" for i in range(n)],
        chosen=(rng.normal(size=(n, WIDTH)) + signal).astype(np.float32),
        rejected=rng.normal(size=(n, WIDTH)).astype(np.float32),
        chosen_length=rng.integers(1, 100, size=n),
        rejected_length=rng.integers(1, 100, size=n),
    )


def make_head(neurons=NEURONS, seed=1):
    """A head with random layers."""
    rng = np.random.default_rng(seed)
    return Head(
        first_weight=rng.normal(size=(neurons, WIDTH)).astype(np.float32),
        first_bias=rng.normal(size=neurons).astype(np.float32),
        second_weight=rng.normal(size=neurons).astype(np.float32),
    )


@pytest.fixture(scope="module")
def splits():
    """Training and validation pairs."""
    return make_pairs("train", seed=2), make_pairs("validation", n=30, seed=3)


def hidden_by_loop(head, rows):
    """Activations of the first layer, one neuron at a time."""
    columns = [np.maximum(rows @ w + b, 0) for w, b in zip(head.first_weight, head.first_bias, strict=True)]
    return np.stack(columns, axis=1).astype(np.float64)


def lowest_objective(head, pairs, config):
    """CVXPY's minimum of the training objective, an independent statement of eq. (8) and (9)."""
    chosen, rejected = hidden_by_loop(head, pairs.chosen), hidden_by_loop(head, pairs.rejected)
    theta = cvxpy.Variable(len(head.second_weight))
    if config.loss == "pairwise":
        exponents = [config.gamma - config.beta * (chosen @ theta - rejected @ theta)]
    else:
        exponents = [config.gamma - config.beta * (chosen @ theta), config.gamma + config.beta * (rejected @ theta)]
    loss = sum(cvxpy.sum(cvxpy.logistic(e)) for e in exponents) / (len(exponents) * len(pairs))
    problem = cvxpy.Problem(cvxpy.Minimize(loss + config.ridge / 2 * cvxpy.sum_squares(theta)))
    return problem.solve(solver=cvxpy.CLARABEL)


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_optimum_agrees_with_cvxpy_and_adamw_approaches_it(splits, loss):
    config = FinetuneConfig(loss=loss, beta=1.5, gamma=0.7, epochs=800, batch_size=1000, learning_rate=0.05)
    head = make_head()
    result = finetune_head(head, *splits, config)
    assert result.optimum_status is OptimumStatus.FOUND
    assert result.optimum_objective == pytest.approx(lowest_objective(head, splits[0], config), rel=1e-6)
    start_gap = result.history[0]["objective"] - result.optimum_objective
    assert start_gap > 0.1
    assert -1e-12 <= result.optimality_gap < 1e-6 * start_gap
    assert result.relative_gap == pytest.approx(result.optimality_gap / result.optimum_objective)
    assert result.distance < 1e-3


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_small_batches_come_close_as_well(splits, loss):
    config = FinetuneConfig(loss=loss, epochs=120, batch_size=16, learning_rate=0.02)
    result = finetune_head(make_head(), *splits, config)
    start_gap = result.history[0]["objective"] - result.optimum_objective
    assert 0 < result.optimality_gap < 0.01 * start_gap


def test_epoch_zero_is_the_phase_one_head_and_agrees_with_a_plain_loop(splits):
    train, _ = splits
    head, config = make_head(), FinetuneConfig(beta=2.0, gamma=0.5, ridge=0.1, epochs=1)
    entry = finetune_head(head, *splits, config).history[0]
    chosen = [float(h @ head.second_weight.astype(np.float64)) for h in hidden_by_loop(head, train.chosen)]
    rejected = [float(h @ head.second_weight.astype(np.float64)) for h in hidden_by_loop(head, train.rejected)]
    margins = [2.0 * (w - low) for w, low in zip(chosen, rejected, strict=True)]
    loss = sum(np.log1p(np.exp(0.5 - margin)) for margin in margins) / 60
    expected = {
        "epoch": 0,
        "loss": loss,
        "objective": loss + 0.05 * sum(float(w) ** 2 for w in head.second_weight),
        "rewards/chosen": 2.0 * sum(chosen) / 60,
        "rewards/rejected": 2.0 * sum(rejected) / 60,
        "rewards/margins": sum(margins) / 60,
        "rewards/margins_min": min(margins),
        "rewards/margins_max": max(margins),
        "rewards/accuracies": sum(margin > 0 for margin in margins) / 60,
        "probability_margin": sum(1 / (1 + np.exp(-margin / 2.0)) for margin in margins) / 60,
    }
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert {f"eval_{name}" for name in expected} - {"eval_epoch", "eval_objective"} == set(entry) - set(expected)


def test_only_the_last_layer_moves(splits):
    head = make_head()
    before = [head.first_weight.tobytes(), head.first_bias.tobytes(), head.second_weight.tobytes()]
    tuned = finetune_head(head, *splits, FinetuneConfig(epochs=3, keep="last")).head
    assert [head.first_weight.tobytes(), head.first_bias.tobytes(), head.second_weight.tobytes()] == before
    assert [tuned.first_weight.tobytes(), tuned.first_bias.tobytes()] == before[:2]
    assert tuned.second_weight.dtype == np.float32
    assert (tuned.second_weight != head.second_weight).all()


def test_one_step_of_adamw_by_hand(splits):
    # A first Adam step moves each weight by the learning rate against the sign of its gradient
    # (m / sqrt(v) = g / |g|), after the decoupled decay has scaled it by 1 - rate * decay.
    config = FinetuneConfig(epochs=1, batch_size=1000, learning_rate=0.01, weight_decay=0.5, keep="last", gamma=0)
    head, (train, _) = make_head(), splits
    rows = hidden_by_loop(head, train.chosen) - hidden_by_loop(head, train.rejected)
    theta = head.second_weight.astype(np.float64)
    gradient = config.ridge * theta - rows.T @ (1 / (1 + np.exp(rows @ theta))) / len(rows)
    expected = theta * (1 - 0.01 * 0.5) - 0.01 * np.sign(gradient)
    tuned = finetune_head(head, *splits, config).head
    assert tuned.second_weight == pytest.approx(expected, abs=1e-6)


def permuted(pairs, seed):
    """The same pairs in another order."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return PairFeatures(
        [pairs.pair_ids[i] for i in order],
        [pairs.groups[i] for i in order],
        *(getattr(pairs, name)[order] for name in ("chosen", "rejected", "chosen_length", "rejected_length")),
    )


def test_same_seed_gives_same_bytes_in_any_order_of_rows(splits):
    config = FinetuneConfig(epochs=5, batch_size=7, keep="last")
    first = finetune_head(make_head(), *splits, config)
    again = finetune_head(make_head(), permuted(splits[0], 8), permuted(splits[1], 9), config)
    assert first.history == again.history
    assert first.head.second_weight.tobytes() == again.head.second_weight.tobytes()
    assert first.report() == again.report()
    other = finetune_head(make_head(), *splits, config.model_copy(update={"seed": 1}))
    assert first.history[0] == other.history[0]
    assert first.history[1] != other.history[1]


def test_best_keeps_the_lowest_validation_loss_and_last_the_last(splits):
    config = FinetuneConfig(epochs=60, batch_size=8, learning_rate=0.05, ridge=0)
    best = finetune_head(make_head(), *splits, config)
    last = finetune_head(make_head(), *splits, config.model_copy(update={"keep": "last"}))
    losses = [entry["eval_loss"] for entry in best.history]
    assert losses == [entry["eval_loss"] for entry in last.history]
    assert best.kept_epoch == losses.index(min(losses))
    assert 0 < best.kept_epoch < 60
    assert last.kept_epoch == 60
    assert last.kept_optimality_gap == last.optimality_gap == best.optimality_gap
    kept_objective = best.history[best.kept_epoch]["objective"]
    assert best.kept_optimality_gap == kept_objective - best.optimum_objective
    assert best.warnings == []
    # the stored head is that of the kept epoch
    restart = finetune_head(best.head, *splits, config.model_copy(update={"epochs": 1}))
    assert restart.history[0]["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_a_start_that_cannot_be_improved_is_kept_with_a_warning(splits):
    train, validation = splits
    flipped = PairFeatures(
        validation.pair_ids,
        validation.groups,
        chosen=validation.rejected,
        rejected=validation.chosen,
        chosen_length=validation.chosen_length,
        rejected_length=validation.rejected_length,
    )
    head = finetune_head(make_head(), flipped, train, FinetuneConfig(epochs=300, learning_rate=0.05, keep="last")).head
    result = finetune_head(head, train, flipped, FinetuneConfig(epochs=2))
    assert result.kept_epoch == 0
    assert result.head.second_weight.tobytes() == head.second_weight.tobytes()
    assert len(result.warnings) == 1
    assert "No epoch had a lower validation loss" in result.warnings[0]


def test_an_unfinished_descent_is_warned_about(splits):
    result = finetune_head(make_head(), *splits, FinetuneConfig(epochs=2, learning_rate=1e-4))
    assert result.kept_epoch == 2
    assert "lowest at the last epoch; raise `finetune.epochs`" in result.warnings[0]


def test_saturation_is_warned_about_and_has_no_optimum_without_ridge():
    train, validation = make_pairs("train", signal=30), make_pairs("validation", signal=30, seed=4)
    head = Head(np.ones((1, WIDTH), dtype=np.float32), np.zeros(1, dtype=np.float32), np.full(1, 0.2, dtype=np.float32))
    result = finetune_head(head, train, validation, FinetuneConfig(epochs=5, ridge=0))
    assert result.history[-1]["rewards/accuracies"] == 1
    assert any("saturated" in sentence for sentence in result.warnings)
    assert result.optimum_status is OptimumStatus.UNBOUNDED
    assert result.status is FinetuneStatus.FINISHED
    assert result.optimum_objective is result.optimality_gap is result.distance is result.kept_relative_gap is None
    with_ridge = finetune_head(head, train, validation, FinetuneConfig(epochs=5, ridge=1e-3))
    assert with_ridge.optimum_status is OptimumStatus.FOUND
    assert with_ridge.optimality_gap >= 0


@pytest.mark.filterwarnings("error")
def test_divergence_is_a_status_and_keeps_the_finite_epochs(splits):
    result = finetune_head(make_head(), *splits, FinetuneConfig(learning_rate=1e308, epochs=9, keep="last"))
    assert result.status is FinetuneStatus.NOT_FINITE
    assert len(result.history) == 1
    assert result.kept_epoch == 0
    assert "Lower `finetune.learning_rate`" in result.status


def test_report_is_plain_json(splits):
    result = finetune_head(make_head(), *splits, FinetuneConfig(epochs=2))
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["status"] == "FINISHED"
    assert report["optimum_status"] == "FOUND"
    assert report["optimality_gap"] == result.optimality_gap
    assert not {"head", "history"} & set(report)
    assert json.loads(json.dumps(result.history, allow_nan=False)) == result.history


def test_progress_counts_epochs(splits):
    calls = []
    finetune_head(make_head(), *splits, FinetuneConfig(epochs=3), progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "epochs"), (2, 3, "epochs"), (3, 3, "epochs")]


def test_global_state_is_left_alone(splits):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    finetune_head(make_head(), *splits, FinetuneConfig(epochs=2))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert_array_equal(numpy_before[1], np.random.get_state()[1])  # noqa: NPY002


def test_bad_input_is_refused_in_one_sentence(splits):
    train, validation = splits
    with pytest.raises(ValueError, match=r"head=.* at least one neuron, got 0; lower the group-lasso weight"):
        finetune_head(make_head(neurons=0), train, validation, FinetuneConfig())
    narrow = make_head()
    narrow = Head(narrow.first_weight[:, :3], narrow.first_bias, narrow.second_weight)
    with pytest.raises(ValueError, match=r"`finetune_head\(train=...\)` must have the 3 features .* got 5"):
        finetune_head(narrow, train, validation, FinetuneConfig())
    with pytest.raises(ValueError, match=r"`finetune_head\(validation=...\)` must share no group with `train`"):
        finetune_head(make_head(), train, train, FinetuneConfig())


def test_a_gated_head_keeps_its_gates_and_tunes_behind_them(splits):
    rng = np.random.default_rng(7)
    gates = {"gate_weight": rng.normal(size=(NEURONS, WIDTH)), "gate_bias": rng.normal(size=NEURONS)}
    head = replace(make_head(), **gates)
    result = finetune_head(head, *splits, FinetuneConfig(epochs=30, ridge=0.1))
    assert_array_equal(result.head.gate_weight, gates["gate_weight"])
    assert_array_equal(result.head.gate_bias, gates["gate_bias"])
    # The loss of the kept epoch, from scores one row and one neuron at a time, up to the float32 of the stored layer.
    chosen, rejected = (gated_score(result.head, rows) for rows in (splits[0].chosen, splits[0].rejected))
    loss = np.log1p(np.exp(0.5 - (chosen - rejected))).mean()
    assert_allclose(result.history[result.kept_epoch]["loss"], loss, rtol=1e-6)
    assert result.history[-1]["objective"] < result.history[0]["objective"]
