"""Pooling: a response's own states, and only those, become one vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coala_core.embed.pooling import pool_spans, response_path

NAN = float("nan")


def test_pooling_by_hand() -> None:
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0], [NAN, NAN], [8.0, 6.0], [0.0, 0.0], [10.0, 2.0]])
    paths = [[(1, 2)], [(4, 1)], [(1, 1), (4, 1), (6, 1)]]
    # Mean of (3, 4) and (5, 9) is (4, 6.5); one token, (8, 6); (3 + 8 + 10, 4 + 6 + 2) / 3 = (7, 4).
    assert pool_spans(states, paths, "mean").tolist() == [[4.0, 6.5], [8.0, 6.0], [7.0, 4.0]]
    assert pool_spans(states, paths, "last").tolist() == [[5.0, 9.0], [8.0, 6.0], [10.0, 2.0]]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("value", [NAN, float("inf"), 1e30])
def test_states_outside_the_paths_do_not_leak(pooling: str, value: float) -> None:
    torch.manual_seed(0)
    states = torch.randn(30, 5)
    paths = [[(2, 4)], [(2, 4), (9, 3)], [(20, 1)]]
    clean = pool_spans(states, paths, pooling)  # type: ignore[arg-type]
    inside = [position for path in paths for start, length in path for position in range(start, start + length)]
    outside = sorted(set(range(30)) - set(inside))
    states[outside] = value
    assert torch.equal(pool_spans(states, paths, pooling), clean)  # type: ignore[arg-type]


def test_pooling_of_half_precision_is_done_in_single() -> None:
    # In bfloat16 256 + 1 is 256, so a sum in half precision would give the mean 1/2 instead of 1/2 + 511/512.
    states = torch.ones((512, 1), dtype=torch.bfloat16)
    states[0] = 256
    pooled = pool_spans(states, [[(0, 512)]], "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((256 + 511) / 512, rel=1e-6)
    assert pool_spans(states, [[(0, 1)]], "last").dtype == torch.float32


def test_means_of_many_spans_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(400, 7)).astype(np.float32)
    paths = []
    for _ in range(40):
        starts = np.sort(rng.choice(200, size=rng.integers(1, 5), replace=False)) * 2
        paths.append([(int(start), int(rng.integers(1, 3))) for start in starts])
    expected = [
        np.concatenate([states[start : start + length] for start, length in path]).astype(np.float64).mean(axis=0)
        for path in paths
    ]
    np.testing.assert_allclose(pool_spans(torch.from_numpy(states), paths, "mean").numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("start", range(9))
def test_a_response_s_path_is_what_is_left_after_the_prompt(start: int) -> None:
    path = ((3, 4), (10, 1), (20, 4))
    positions = [3, 4, 5, 6, 10, 20, 21, 22, 23]
    rest = response_path(path, start)
    assert [p for first, length in rest for p in range(first, first + length)] == positions[start:]
    assert all(length > 0 for _, length in rest)
