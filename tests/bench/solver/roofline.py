"""What a sweep cannot do without: its two products with X, and what the machine's memory and arithmetic allow.

Every figure is the best of several repeats in one process, after the solve whose sweeps it is set beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from coala_core.backend import Array
from coala_core.cvxnn.products import Products

REPEATS = 7
SQUARE = 2_048


def measure_limits(features: Array, gates: int, dtypes: tuple[str, ...], xp: ModuleType) -> dict[str, Any]:
    """Time X U and X'S, a copy of X, and a square product.

    Parameters
    ----------
    features : (n, d)
        Their values hardly matter; a constant column is added.
    gates : int
        P; U is (d + 1, 2 P) and S is (n, 2 P).
    dtypes : tuple of str
        Precisions to measure in.
    xp : module
        NumPy or CuPy.

    Returns
    -------
    dict
        Per precision: products_s (by the library that the solver takes for this size of problem), copy_gb_per_s (read
        and write), matmul_gflop_per_s, roofline_s, which is the larger
        of the bytes of X over the copy's rate and 8 n d P over the product's.
    """
    found = {}
    for name in dtypes:
        dtype = xp.dtype(name)
        x = xp.hstack([xp.asarray(features, dtype=dtype), xp.ones((len(features), 1), dtype=dtype)])
        found[name] = _limits_of(x, gates, xp)
        del x
    return found


def _limits_of(x: Array, gates: int, xp: ModuleType) -> dict[str, float]:
    """Measure at one precision."""
    n, d = x.shape
    u, s = xp.full((d, 2 * gates), 0.5, dtype=x.dtype), xp.full((n, 2 * gates), 0.5, dtype=x.dtype)
    forward, ways = xp.empty_like(s), Products(4 * n * d * gates, xp)

    def products() -> None:
        ways.times(x, u, out=forward)
        ways.back(x, s)

    with ways.sweeping():
        products_s = _best(products, xp)
    target = xp.empty_like(x)
    copy_s = _best(lambda: xp.copyto(target, x), xp)
    square = xp.full((SQUARE, SQUARE), 0.5, dtype=x.dtype)
    room = xp.empty_like(square)
    square_s = _best(lambda: xp.matmul(square, square, out=room), xp)
    bandwidth, rate = 2.0 * x.nbytes / copy_s, 2.0 * SQUARE**3 / square_s
    return {
        "products_s": products_s,
        "copy_gb_per_s": bandwidth / 1e9,
        "matmul_gflop_per_s": rate / 1e9,
        "roofline_s": max(x.nbytes / bandwidth, 8.0 * n * d * gates / rate),
    }


def _best(work: Callable[[], Any], xp: ModuleType) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    wait, seconds = waiting(xp), []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def waiting(xp: ModuleType) -> Callable[[], None]:
    """Return what waits for all that a device was asked for; the host has done it by the time it is asked."""

    def wait() -> None:
        if xp is not np:
            xp.cuda.Device().synchronize()

    return wait
