"""The two preference losses of Phase II; tensors in, a scalar tensor out.

Both are logistic in the head's scores h, hence convex in the last layer. Softplus,
log(1 + e^z), is computed without overflow, so scores of any size give a finite value.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def pairwise_loss(chosen_scores: Tensor, rejected_scores: Tensor, beta: float, gamma: float) -> Tensor:
    r"""Mean loss of eq. (8) of Feng & Pilanci (2026) in its working form.

    Equation (8) is -log sigma(beta log[pi(y_w)/pi(y_l)] - gamma). With scores in the place of
    log-probabilities, log pi(y_w) - log pi(y_l) -> h_w - h_l, it reads

        mean_i log(1 + exp(gamma - beta (h_w,i - h_l,i))).

    Parameters
    ----------
    chosen_scores, rejected_scores : (n,) floating tensors
        Scores h_w and h_l of the two responses of each pair, in the same order.
    beta : float, above 0
        Reward scale.
    gamma : float, 0 or above
        Margin asked for, in rewards.

    Returns
    -------
    Tensor
        Scalar, above 0; log 2 for equal scores and gamma = 0.

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    if chosen_scores.shape != rejected_scores.shape:
        raise ValueError(
            f"`pairwise_loss(rejected_scores=...)` must have the shape of `chosen_scores`, "
            f"got {tuple(rejected_scores.shape)} and {tuple(chosen_scores.shape)}; score both responses of each pair."
        )
    return softplus(gamma - beta * (chosen_scores - rejected_scores)).mean()


def pointwise_loss(scores: Tensor, labels: Tensor, beta: float, gamma: float) -> Tensor:
    r"""Mean loss of eq. (9) of Feng & Pilanci (2026), on single responses.

    mean_i log(1 + exp(-beta y_i h_i + gamma)).

    Parameters
    ----------
    scores : (n,) floating tensor
        Scores h of responses, chosen and rejected alike.
    labels : (n,) tensor
        +1 for a chosen response, -1 for a rejected one.
    beta : float, above 0
        Reward scale.
    gamma : float, 0 or above
        Distance from zero asked for, in rewards.

    Returns
    -------
    Tensor
        Scalar, above 0.

    Raises
    ------
    ValueError
        If the two shapes differ.
    """
    if scores.shape != labels.shape:
        raise ValueError(
            f"`pointwise_loss(labels=...)` must have the shape of `scores`, "
            f"got {tuple(labels.shape)} and {tuple(scores.shape)}; give one label per response."
        )
    return softplus(gamma - beta * labels * scores).mean()
