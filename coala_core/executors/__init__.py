"""Engines for many idempotent jobs: processes of this machine, or Ray."""

from __future__ import annotations

from coala_core.executors.base import Executor as Executor
from coala_core.executors.base import Worker as Worker
from coala_core.executors.base import require_positive
from coala_core.executors.local import LocalExecutor as LocalExecutor
from coala_core.executors.ray import RayExecutor as RayExecutor


def make_executor(
    kind: str,
    workers: int = 1,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float = 0.0,
    address: str | None = None,
) -> Executor:
    """Make the executor that a configuration names.

    The same `workers` and `cpus_per_worker` give the same number of compute threads per worker, `cpus_per_worker`
    rounded down and 1 at least, and so the same results to the last bit; except that one local worker without
    `cpus_per_worker` is this process with the threads it has.

    Parameters
    ----------
    kind : "local" or "ray"
    workers : int, at least 1
    cpus_per_worker : float, positive, optional
        None divides the cores of this machine, or of the cluster, among the workers.
    gpus_per_worker : float, 0 or more
        For Ray only; local workers all see the same GPUs.
    address : str, optional
        For Ray only: "auto" joins the cluster of this machine, None starts Ray on it.

    Raises
    ------
    ValueError
        If the kind is neither, a number is out of range, or a setting of Ray comes with "local".
    """
    if kind == "ray":
        return RayExecutor(workers, cpus_per_worker, gpus_per_worker, address)
    if kind != "local":
        raise ValueError(f"`make_executor(kind=...)` must be local or ray, got {kind!r}; use local on one machine")
    if gpus_per_worker or address is not None:
        raise ValueError(
            "`make_executor(kind='local')` must come without settings of Ray, "
            f"got gpus_per_worker={gpus_per_worker!r} and address={address!r}; use the kind ray, or leave them out"
        )
    require_positive("make_executor(cpus_per_worker=...)", cpus_per_worker, whole=False)
    return LocalExecutor(workers, None if cpus_per_worker is None else max(1, int(cpus_per_worker)))
