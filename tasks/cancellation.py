"""The UI's Cancel button while a stage holds the signal back."""

from __future__ import annotations

import logging
import os
import signal

from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run


def die_if_cancelled(end: BaseException) -> None:
    """End this process as its signal would have, if the run was cancelled; otherwise do nothing.

    Prefect tells a process of a cancellation only while its own handler is in place. A stage that finishes a step
    first has put another one there, and Prefect would then take the end of the run for a crash. A process that simply
    dies of the signal is reported as cancelled by the worker that sent it.

    Parameters
    ----------
    end : BaseException
        What ended the run.
    """
    if not isinstance(end, TerminationSignal) or not _is_cancelling():
        return
    logging.shutdown()
    signal.signal(end.signal, signal.SIG_DFL)
    os.kill(os.getpid(), end.signal)


def _is_cancelling() -> bool:
    """Ask the server about the outermost run, which is the one that people cancel."""
    number = flow_run.root_flow_run_id
    if number is None:
        return False
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(number).state
    return state is not None and state.is_cancelling()
