"""Fixtures of the core's tests."""

from __future__ import annotations

import numpy as np
import pytest

from coala_core.backend import resolve_backend


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, then CuPy; absent CuPy or an absent device is a visible skip."""
    if request.param == "numpy":
        return np
    pytest.importorskip("cupy")
    try:
        return resolve_backend("cupy")
    except RuntimeError as error:
        pytest.skip(str(error))
