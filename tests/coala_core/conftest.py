"""Fixtures of the core's tests."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from coala_core.backend import resolve_backend
from tests.imitated_cupy import imitated_cupy

DEVICES = ["imitated_cupy", pytest.param("cupy", marks=pytest.mark.gpu)]


@contextlib.contextmanager
def library(name):
    """An array library by name; absent CuPy or an absent device is a visible skip."""
    if name == "numpy":
        yield np
    elif name == "imitated_cupy":
        with imitated_cupy() as cupy:
            yield cupy
    else:
        pytest.importorskip("cupy")
        try:
            yield resolve_backend("cupy")
        except RuntimeError as error:
            pytest.skip(str(error))


@pytest.fixture(params=["numpy", *DEVICES])
def xp(request):
    """NumPy, an imitation that keeps CuPy's rules, and CuPy."""
    with library(request.param) as found:
        yield found


@pytest.fixture(params=["numpy", pytest.param("imitated_cupy", marks=pytest.mark.slow), DEVICES[1]])
def long_xp(request):
    """The same for tests of thousands of sweeps, which the imitation takes seconds for."""
    with library(request.param) as found:
        yield found


@pytest.fixture(params=DEVICES)
def device(request):
    """The imitation, and CuPy."""
    with library(request.param) as found:
        yield found
