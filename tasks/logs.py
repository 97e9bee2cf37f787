"""The log of a run as JSON lines in the store, under the run id that MLflow and the journal have, too.

``<store>/logs/<run id>.jsonl`` holds one object a line: time, level, logger, message, run id, stage and the ids of
Prefect. It is bounded, and values of secrets do not get into it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from tasks.doctor_check import masked
from tasks.run_files import LOGS

LOGGERS = ("coala", "prefect.flow_runs", "prefect.task_runs")
"""Loggers whose records belong to a run."""

MAX_BYTES = 16_000_000
"""Size at which a log starts anew, its first part kept as ``.jsonl.1``; the part before that is lost."""

_SECRET_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|AUTH_STRING|API_KEY|CREDENTIAL|CONNECTION_URL", re.IGNORECASE)
_SHORTEST = 6  # shorter values would be found in ordinary words
_RUN: ContextVar[str | None] = ContextVar("coala_run", default=None)


@contextmanager
def run_log(store: Path, run: str) -> Iterator[Path]:
    """Write what is logged meanwhile to the run's file, and give the file's path.

    Records of this thread and of the tasks that are started from it carry the run id as `record.coala_run`. Of runs
    at the same time in one process each gets its own records; those of threads that belong to none go to all.

    Parameters
    ----------
    store : Path
        Folder of all artifacts.
    run : str
        The tracker's run id.
    """
    _install_factory()
    path = store / LOGS / f"{run}.jsonl"
    handler = _JsonLines(path, run)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    token = _RUN.set(run)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield path
    except BaseException as error:
        handler.handle(_ending(error))
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        _RUN.reset(token)
        handler.close()


def current_run() -> str | None:
    """Run id of the run that this thread works for."""
    return _RUN.get()


def _ending(error: BaseException) -> logging.LogRecord:
    """Make the record of what ended a run; Prefect tells it too, but not to this file."""
    kind = type(error)
    level = logging.ERROR if isinstance(error, Exception) else logging.WARNING
    trace = (kind, error, error.__traceback__)
    return logging.getLogger("coala.run").makeRecord(
        "coala.run", level, __file__, 0, "the run ended by %s", (kind.__name__,), trace
    )


class _JsonLines(RotatingFileHandler):
    """Writes the records of one run, and never stops the run."""

    def __init__(self, path: Path, run: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass over records of other runs in the same process."""
        return getattr(record, "coala_run", None) in (None, self._run)

    def format(self, record: logging.LogRecord) -> str:
        """Give one JSON object without line breaks."""
        flow, task, stage = _prefect_ids(record)
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(_message(record)),
            "run_id": self._run,
            "stage": stage,
            "flow_run_id": flow,
            "task_run_id": task,
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = without_secrets(logging.Formatter().formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)

    def handleError(self, record: logging.LogRecord) -> None:
        """Do without the record: a full disk must not stop the run, nor fill the terminal with tracebacks."""


def without_secrets(text: str) -> str:
    """Replace credentials of addresses, and the values of environment variables that are secrets, by ``***``."""
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return masked(text)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # the arguments do not fit the format
        return str(record.msg)


def _prefect_ids(record: logging.LogRecord) -> tuple[str | None, str | None, str | None]:
    """Ids of flow run and task run and the stage, as Prefect's loggers note them or as its context has them."""
    noted = vars(record)
    flow, task, name = (noted.get(key) for key in ("flow_run_id", "task_run_id", "task_name"))
    if flow is None:
        flow, task, name = _context_ids()
    return _text(flow), _text(task), _text(name)


def _context_ids() -> tuple[Any, Any, Any]:
    from prefect.context import FlowRunContext, TaskRunContext

    if (inner := TaskRunContext.get()) is not None:
        return inner.task_run.flow_run_id, inner.task_run.id, inner.task.name
    outer = FlowRunContext.get()
    return (outer.flow_run.id if outer is not None and outer.flow_run is not None else None), None, None


def _text(value: Any) -> str | None:
    return None if value is None or value == "<unknown>" else str(value)


def _install_factory() -> None:
    """Let every record say which run it belongs to; done once, whoever else makes records, too."""
    before = logging.getLogRecordFactory()
    if getattr(before, "is_coala", False):
        return

    def factory(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = before(*arguments, **named)
        record.coala_run = _RUN.get()
        return record

    factory.is_coala = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)
