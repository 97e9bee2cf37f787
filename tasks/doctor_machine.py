"""The doctor's probes of the machine: disk, processor, memory, and what reports to the outside."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import psutil

from coala_core.estimate import features_bytes, shown
from tasks.doctor_check import Check

_GIB = 1 << 30
_LEAST_FREE = 2 * _GIB
_LEAST_MEMORY = 2 * _GIB
_WIDTH = 1024
_TRUE = ("1", "true", "yes", "on")
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def is_true(value: str | None) -> bool:
    """Tell whether an environment variable's value switches something on."""
    return (value or "").strip().lower() in _TRUE


def writable_folder(path: Path) -> Path:
    """Return the path itself or its closest ancestor that exists, having written a scratch file there.

    Raises
    ------
    OSError
        If what exists is not a folder, or cannot be written to.
    """
    resolved = path.expanduser().resolve()
    found = next(folder for folder in (resolved, *resolved.parents) if folder.exists())
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is not a folder")
    with tempfile.TemporaryFile(dir=found) as scratch:
        scratch.write(b"coala")
        scratch.flush()
    return found


def check_store(store: Path) -> Check:
    """Look whether the store's file system can be written and has room."""
    name, target = "store", shlex.quote(str(store))
    try:
        folder = writable_folder(store)
    except OSError as error:
        return Check(
            name, "problem", f"{store} cannot be written: {error}", f"mkdir -p {target} && chmod u+rwx {target}"
        )
    free = shutil.disk_usage(folder).free
    million = features_bytes(1_000_000, 1, _WIDTH, 256)
    room = f"{free / _GIB:.1f} GiB free for {store} (a layer of a million pairs, {_WIDTH} wide, takes {shown(million)})"
    if free < _LEAST_FREE:
        return Check(name, "problem", f"{room}, at least {_LEAST_FREE // _GIB} GiB are needed", f"du -sh {folder}/*")
    return Check(name, "ok", f"{room}, writable" if folder == store.expanduser().resolve() else f"{room}, not made yet")


def check_hardware() -> Check:
    """Count processor cores and measure memory."""
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count()
    finding = f"{cores} processor cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB of memory free"
    if memory.available < _LEAST_MEMORY:
        return Check(
            "hardware", "note", f"{finding}: close something, or lower `embed.batch_tokens`", "ps aux --sort=-rss"
        )
    return Check("hardware", "ok", finding)


def check_telemetry() -> Check:
    """List the variables that keep Prefect, MLflow and the hub from reporting to their makers."""
    state = "; ".join(f"{name}={os.environ.get(name, '(unset)')}" for name in _QUIET)
    loud = [name for name, quiet in _QUIET.items() if not _is_quiet(os.environ.get(name), quiet)]
    if not loud:
        return Check("telemetry", "ok", f"off: {state}")
    remedy = "export " + " ".join(f"{name}={_QUIET[name]}" for name in loud)
    return Check("telemetry", "note", f"may be on in tools started outside coala: {state}", remedy)


def _is_quiet(value: str | None, quiet: str) -> bool:
    """Unset means on, whatever the variable's sense."""
    return value is not None and is_true(value) == is_true(quiet)
