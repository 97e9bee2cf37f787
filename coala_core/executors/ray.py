"""Workers that are Ray actors, on this machine or on a cluster; the only module that imports ray."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from coala_core.executors.base import (
    Dispatch,
    Event,
    Job,
    Result,
    Worker,
    environment,
    limit_threads,
    own_cores,
    portable,
    require_positive,
    share_of_cores,
)

_OBJECT_STORE_BYTES = 100_000_000  # jobs and results are small; /dev/shm often is, too
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray prints a dead worker's obituary on stdout, which belongs to our caller; `map` tells of deaths itself.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "[Ww]orkers? .*(died|killed)",
}


class RayExecutor:
    """Workers that are Ray actors.

    Needs the extra `ray`. A Ray that is running in this process is used and left running. Otherwise Ray is started on
    this machine, or a cluster is joined, when the first job comes, and is left when the last one is done.

    Parameters
    ----------
    workers : int, at least 1
        Jobs done at the same time. On a cluster with less room, those that fit do the jobs.
    cpus_per_worker : float, positive, optional
        Cores that Ray reserves for a worker; rounded down, 1 at least, also its compute threads. None is the largest
        whole number that all workers can have.
    gpus_per_worker : float, 0 or more, whole above 1
        GPUs that Ray reserves for a worker, which then sees no others; with 0 it sees all of its machine.
    address : str, optional
        None starts Ray on this machine, "auto" joins the cluster that this machine belongs to, "host:port" a certain
        one of them.

    Raises
    ------
    ValueError
        If a number is out of range, or the address is neither auto nor host:port.
    """

    def __init__(
        self,
        workers: int,
        cpus_per_worker: float | None = None,
        gpus_per_worker: float = 0.0,
        address: str | None = None,
    ) -> None:
        require_positive("RayExecutor(workers=...)", workers, whole=True)
        require_positive("RayExecutor(cpus_per_worker=...)", cpus_per_worker, whole=False)
        if not 0 <= gpus_per_worker < math.inf or (gpus_per_worker > 1 and gpus_per_worker % 1):
            raise ValueError(
                "`RayExecutor(gpus_per_worker=...)` must be between 0 and 1, or a whole number, "
                f"got {gpus_per_worker!r}; give 1 for a GPU of its own to each worker"
            )
        # Not a URL of Ray Client, which needs this package on the head and drops after 30 s without network.
        if address not in (None, "auto") and not re.fullmatch(r"[^:/]+:\d{1,5}", str(address)):
            raise ValueError(
                "`RayExecutor(address=...)` must be auto or host:port of a cluster that this machine belongs to, "
                f"got {address!r}; run `ray start --address=host:port` here first"
            )
        self.workers = workers
        self.cpus_per_worker = cpus_per_worker
        self.gpus_per_worker = gpus_per_worker
        self.address = address

    def map(self, start: Callable[[], Worker[Job, Result]], jobs: Iterable[Job]) -> Generator[Result, None, None]:
        """Do all jobs, as `Executor.map` says.

        Raises
        ------
        ModuleNotFoundError
            If ray is not installed.
        ConnectionError
            If there is no cluster at the address.
        ValueError
            If no machine of the cluster has room for a worker.
        RuntimeError
            If three workers died at the same job, or three in a row died while they started.
        """
        return Dispatch(_Actors(self, start), self.workers, "RayExecutor").results(jobs)


class _Actors:
    """A crew of Ray actors; Ray is entered when the first one is hired."""

    def __init__(self, executor: RayExecutor, start: Callable[[], Worker[Any, Any]]) -> None:
        self._executor, self._start = executor, start
        self._ray: Any = None
        self._left = ExitStack()
        self._actors: list[Any] = []
        self._reports: dict[Any, tuple[Any, str]] = {}

    def hire(self) -> None:
        if self._ray is None:
            self._ray = self._left.enter_context(_running_ray(self._executor))
            cpus = _reserved_cpus(self._ray, self._executor)
            self._threads = max(1, int(cpus))
            # No restarts by Ray: `Dispatch` replaces the dead, in the same way for all executors.
            self._options = {"num_cpus": cpus, "num_gpus": self._executor.gpus_per_worker, "max_restarts": 0}
        actor = self._ray.remote(_Actor).options(**self._options).remote(self._threads)
        self._actors.append(actor)
        self._reports[actor.begin.remote(self._start)] = (actor, "ready")

    def assign(self, member: Any, job: Any) -> None:
        self._reports[member.work.remote(job)] = (member, "done")

    def wait(self) -> Event[Any]:
        (report,), _ = self._ray.wait(list(self._reports), num_returns=1)
        actor, kind = self._reports.pop(report)
        try:
            return Event(actor, kind, self._ray.get(report))  # type: ignore[arg-type]
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        except self._ray.exceptions.RayError as error:
            self._dismiss(actor)
            words = str(error).partition("\n")[0]
            return Event(actor, "died", f"{type(error).__name__}, {words}")

    def stop(self, resting: Collection[Any]) -> None:
        with self._left:
            for actor in list(self._actors):
                self._dismiss(actor)

    def _dismiss(self, actor: Any) -> None:
        self._actors.remove(actor)
        self._ray.kill(actor, no_restart=True)


class _Actor:
    """One worker, inside a process of Ray."""

    def __init__(self, threads: int) -> None:
        # Before `start` arrives, whose module may import torch; Ray's own choice may be that of another variable.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._threads = threads
        self._work: Worker[Any, Any] | None = None

    def begin(self, start: Callable[[], Worker[Any, Any]]) -> None:
        with _portable_errors():
            self._work = start()
            limit_threads(self._threads)

    def work(self, job: Any) -> Any:
        with _portable_errors():
            assert self._work is not None
            return self._work(job)


@contextmanager
def _portable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the caller of `map` gets it
        raise portable(error) from None


@contextmanager
def _running_ray(executor: RayExecutor) -> Iterator[Any]:
    """Use the Ray of this process, or enter one and leave it at the end."""
    with environment(**_QUIET):  # read when ray is imported
        ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with environment(**_QUIET), _kept_sigterm():
            _enter(ray, executor)
        yield ray
    finally:
        ray.shutdown()
        logger.setLevel(level)


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`RayExecutor.map` needs the package ray, which is not installed; "
            "run `pip install -c constraints.txt -e '.[ray]'`, or use the executor local"
        ) from error
    return ray


def _enter(ray: Any, executor: RayExecutor) -> None:
    quiet = {"log_to_driver": False, "configure_logging": False}
    if executor.address is None:
        cpus = executor.cpus_per_worker or share_of_cores([own_cores()], executor.workers)
        ray.init(
            address="local",
            num_cpus=executor.workers * math.ceil(cpus),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
        return
    host, _, port = executor.address.rpartition(":")
    try:
        if host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5.0).close()
        ray.init(address=executor.address, **quiet)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"`RayExecutor(address={executor.address!r})` must lead to a running cluster, got none; "
            "run `ray start` on this machine first, or leave the address empty to work here alone"
        ) from error


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Undo that Ray takes SIGTERM from whoever handles it; Ray's own processes notice when this one is gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _reserved_cpus(ray: Any, executor: RayExecutor) -> float:
    """Cores to reserve for a worker, which at least one machine must have, and the GPUs too."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = executor.cpus_per_worker or share_of_cores([m.get("CPU", 0) for m in machines], executor.workers)
    if not any(m.get("CPU", 0) >= cpus and m.get("GPU", 0) >= executor.gpus_per_worker for m in machines):
        largest = max(((m.get("CPU", 0), m.get("GPU", 0)) for m in machines), default=(0, 0))
        raise ValueError(
            f"`RayExecutor` needs a machine with {cpus:g} cores and {executor.gpus_per_worker:g} GPUs for a worker, "
            f"got {largest[0]:g} and {largest[1]:g} at most; lower `cpus_per_worker` or `gpus_per_worker`"
        )
    return cpus
