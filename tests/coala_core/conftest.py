"""Fixtures of the core's tests."""

from __future__ import annotations

import numpy as np
import pytest

from coala_core.backend import resolve_backend
from tests.imitated_cupy import imitated_cupy


@pytest.fixture(params=["numpy", "imitated_cupy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, an imitation that keeps CuPy's rules, and CuPy; absent CuPy or an absent device is a visible skip."""
    if request.param == "numpy":
        yield np
    elif request.param == "imitated_cupy":
        with imitated_cupy() as cupy:
            yield cupy
    else:
        pytest.importorskip("cupy")
        try:
            yield resolve_backend("cupy")
        except RuntimeError as error:
            pytest.skip(str(error))
