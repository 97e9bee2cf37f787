"""What makes a stage a Prefect task: a key of its content, retries of I/O, and progress on the run's page."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import httpx
from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.logging import get_run_logger

from coala_core.progress import Progress
from coala_core.storage import Artifact, Store, digest

RETRIES = 2
RETRY_SECONDS = 5
LOG_SECONDS = 10.0
ARTIFACT_SECONDS = 2.0

_HOPELESS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
}


class StageTask:
    """A stage as a Prefect task whose cached result follows content, not paths.

    The key is the stage's own: what it reads and its configuration. A cached result whose files are gone or
    damaged is refreshed, and the stage then rebuilds what is missing.

    Parameters
    ----------
    function : callable
        The shell, called with the store's folder, the stage's configuration and its input artifacts.
    stage : module
        One of `coala_core.stages`.
    """

    def __init__(self, function: Callable[..., Artifact], stage: ModuleType) -> None:
        self.stage = stage
        self.task: Task[..., Artifact] = Task(
            function,
            name=stage.STAGE,
            persist_result=True,
            result_serializer="json",
            retries=RETRIES,
            retry_delay_seconds=RETRY_SECONDS,
            retry_jitter_factor=0.5,
            retry_condition_fn=may_pass,
        )
        self.__doc__ = function.__doc__

    def __call__(self, store: str, config: Any, *inputs: Artifact) -> Artifact:
        """Run the stage, or take its result from the cache, as a task of the flow run at hand."""
        shelf = Store(store)
        key = self.stage.plan(shelf, config, *inputs).key
        name = self.stage.STAGE
        # Two stores may hold equal keys, and a cached result names a folder.
        cache_key = f"{name}-{key}-{digest(str(shelf.root))[:8]}"
        planned = self.task.with_options(
            task_run_name=f"{name}-{key[:8]}",
            cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _context, _parameters: cache_key),
            refresh_cache=not shelf.is_intact(name, key),
        )
        cached = planned(store, config, *inputs)
        # What is on the shelf may have been rebuilt since the result was cached; otherwise Prefect's own object goes
        # on, by which it knows which task depends on which.
        found = shelf.find(name, key)
        return cached if found is None or found == cached else found


def stage_task(stage: ModuleType) -> Callable[[Callable[..., Artifact]], StageTask]:
    """Make a shell function the Prefect task of a stage."""
    return lambda function: StageTask(function, stage)


def may_pass(_task: Task[..., Any], _task_run: Any, state: Any) -> bool:
    """Tell whether a failure may pass by itself: I/O and connections, but no missing file, right or disk space."""
    failure = state.result(raise_on_failure=False)
    if isinstance(failure, OSError):
        return failure.errno not in _HOPELESS
    return isinstance(failure, httpx.TransportError)


@contextmanager
def reported_progress(stage: str) -> Iterator[Progress]:
    """Give a listener that shows progress as an artifact of the run and, less often, in its log."""
    logger = get_run_logger()
    artifact = create_progress_artifact(0.0, key=f"{stage}-progress", description=f"{stage}: starting")
    started = time.monotonic()
    shown = logged = started

    def listen(done: int, total: int, what: str) -> None:
        nonlocal shown, logged
        now = time.monotonic()
        text = describe_progress(stage, done, total, what, now - started)
        if now - shown >= ARTIFACT_SECONDS:
            shown = now
            _update(artifact, 100 * done / max(total, 1), text)
        if now - logged >= LOG_SECONDS:
            logged = now
            logger.info(text)

    yield listen
    _update(artifact, 100.0, f"{stage}: done in {time.monotonic() - started:.1f} s")


def describe_progress(stage: str, done: int, total: int, what: str, seconds: float) -> str:
    """One line for a log.

    >>> describe_progress("embed", 50, 200, "pairs", 30.0)
    'embed: 50 of 200 pairs, 25 %, about 90 s left'
    """
    line = f"{stage}: {done:,} of {total:,} {what}"
    if not 0 < done < total:
        return line
    return f"{line}, {100 * done / total:.0f} %, about {seconds * (total - done) / done:.0f} s left"


def _update(artifact: Any, percent: float, text: str) -> None:
    try:
        update_progress_artifact(artifact, percent, description=text)
    except httpx.HTTPError as error:
        # A server that is away must not stop the work that it shows.
        get_run_logger().warning("progress of the run could not be shown: %s", error)
