"""The losses against arithmetic in sight, finite differences and extreme scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coala_core.losses import pairwise_loss, pointwise_loss


def vector(*values):
    """A float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def test_pairwise_loss_by_hand():
    # gamma - beta (h_w - h_l): 0.5 - 2 (1 - 0.5) = -0.5 and 0.5 - 2 (0 - 1) = 2.5
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(2.5))) / 2
    assert float(pairwise_loss(vector(1, 0), vector(0.5, 1), beta=2, gamma=0.5)) == pytest.approx(expected, rel=1e-14)


def test_pointwise_loss_by_hand():
    # gamma - beta y h: 0.5 - 2 (+1)(1) = -1.5 and 0.5 - 2 (-1)(3) = 6.5
    expected = (math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(6.5))) / 2
    assert float(pointwise_loss(vector(1, 3), vector(1, -1), beta=2, gamma=0.5)) == pytest.approx(expected, rel=1e-14)


def test_equal_scores_without_margin_cost_log_two():
    assert float(pairwise_loss(vector(3, 3), vector(3, 3), beta=7, gamma=0)) == pytest.approx(math.log(2), rel=1e-14)


def test_pairwise_is_pointwise_on_the_difference():
    chosen, rejected = vector(0.3, -1.2, 4.0), vector(1.0, -2.0, 4.0)
    pairs = pairwise_loss(chosen, rejected, beta=1.7, gamma=0.4)
    points = pointwise_loss(chosen - rejected, torch.ones(3, dtype=torch.float64), beta=1.7, gamma=0.4)
    assert float(pairs) == pytest.approx(float(points), rel=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_gradients_agree_with_central_differences(gamma):
    chosen, rejected, labels = vector(0.3, -1.2, 2.0), vector(1.0, -2.0, 2.5), vector(1, -1, 1)
    losses = [
        lambda scores: pairwise_loss(scores, rejected, 1.5, gamma),
        lambda scores: pairwise_loss(chosen, scores, 1.5, gamma),
        lambda scores: pointwise_loss(scores, labels, 1.5, gamma),
    ]
    step = 1e-6
    for loss in losses:
        at = vector(0.3, -1.2, 2.0).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(at), at)
        for i in range(3):
            shift = torch.zeros(3, dtype=torch.float64)
            shift[i] = step
            with torch.no_grad():
                difference = (loss(at + shift) - loss(at - shift)) / (2 * step)
            assert float(gradient[i]) == pytest.approx(float(difference), abs=1e-9)


scores = st.lists(st.floats(-50, 50), min_size=4, max_size=4)


@given(scores, scores, scores, st.floats(0, 1))
def test_losses_are_convex_along_any_segment(first, second, rejected, share):
    a, b, other, labels = vector(*first), vector(*second), vector(*rejected), vector(1, -1, 1, -1)
    between = share * a + (1 - share) * b
    for loss in (lambda h: pairwise_loss(h, other, 1.3, 0.5), lambda h: pointwise_loss(h, labels, 1.3, 0.5)):
        assert float(loss(between)) <= share * float(loss(a)) + (1 - share) * float(loss(b)) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_scores_stay_finite(dtype):
    high, low = torch.tensor([1e4], dtype=dtype), torch.tensor([-1e4], dtype=dtype)
    # softplus(0.5 + 20000) = 20000.5 and softplus(0.5 - 20000) = 0, both to rounding
    assert float(pairwise_loss(low, high, 1, 0.5)) == pytest.approx(20000.5, rel=1e-6)
    assert float(pairwise_loss(high, low, 1, 0.5)) == 0
    # softplus(0.5 + 10000) = 10000.5
    assert float(pointwise_loss(low, torch.ones_like(low), 1, 0.5)) == pytest.approx(10000.5, rel=1e-6)
    wrong = low.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pairwise_loss(wrong, high, 1, 0.5), wrong)
    assert float(gradient) == pytest.approx(-1)  # the loss falls by beta per unit of h_w


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"rejected_scores=.* got \(1,\) and \(2,\)"):
        pairwise_loss(vector(1, 2), vector(1), 1, 0)
    with pytest.raises(ValueError, match=r"labels=.* got \(2, 1\) and \(2,\)"):
        pointwise_loss(vector(1, 2), vector(1, -1)[:, None], 1, 0)
