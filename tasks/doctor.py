"""`coala doctor`: look at everything a run depends on, in a few seconds and without changing anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import httpx

from coala_core.config import BUILTIN_MODEL
from tasks.doctor_check import Check, Status
from tasks.doctor_machine import check_hardware, check_store, check_telemetry
from tasks.doctor_services import check_mlflow, check_prefect, check_prefect_key
from tasks.doctor_software import (
    check_clashes,
    check_cupy,
    check_model,
    check_packages,
    check_python,
    check_torch,
)

__all__ = ["Check", "Status", "diagnose"]

_PROJECT = Path(__file__).resolve().parents[1]
# What broken installations, files and servers raise.
_PROBE_ERRORS = (
    ImportError,
    AttributeError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    httpx.HTTPError,
    httpx.InvalidURL,
)


def diagnose(store: Path, model: str = BUILTIN_MODEL) -> list[Check]:
    """Probe Python, packages, devices, language model, servers, disk and telemetry.

    Nothing is downloaded or written, but for a scratch file that vanishes at once. Each probe stands
    alone: one that fails is itself reported as a problem, and the others still run. Credentials in
    addresses and in error texts are masked.

    Parameters
    ----------
    store : Path
        Folder of the artifacts; it need not exist yet.
    model : str
        Language model as in `EmbedConfig.model`: "builtin", a folder, or a hub name.

    Returns
    -------
    list of Check
        In a fixed order, one for each probe.
    """
    install = f"python -m pip install -e {shlex.quote(str(_PROJECT))}"
    return [
        _isolated("Python", check_python, install),
        _isolated("packages", lambda: check_packages(_PROJECT / "constraints.txt"), install),
        _isolated("known clashes", check_clashes, "python -m pip check"),
        _isolated("PyTorch", check_torch, "python -m pip install --force-reinstall torch"),
        _isolated("CuPy", check_cupy, "python -m pip list"),
        _isolated("language model", lambda: check_model(store, model), "hf cache ls"),
        _isolated("Prefect server", check_prefect, "prefect config view"),
        _isolated("Prefect key", check_prefect_key, "prefect config view"),
        _isolated("MLflow", lambda: check_mlflow(store), "unset MLFLOW_TRACKING_URI"),
        _isolated("store", lambda: check_store(store), f"ls -ld {shlex.quote(str(store))}"),
        _isolated("hardware", check_hardware, "python -m pip install --force-reinstall psutil"),
        _isolated("telemetry", check_telemetry, "env"),
    ]


def _isolated(name: str, probe: Callable[[], Check], remedy: str) -> Check:
    """Run one probe; its failure is a finding."""
    try:
        check = probe()
    except _PROBE_ERRORS as error:
        reason = " ".join(str(error).split()) or "no message"
        check = Check(name, "problem", f"this check failed: {type(error).__name__}: {reason}", remedy)
    return check.without_credentials()
