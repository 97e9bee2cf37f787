"""Runs whose process died with nobody left to say so: automations of the Prefect server mark them as crashed.

A killed machine leaves its runs in RUNNING for ever. A run of a deployment sends a heartbeat twice a minute
(`prefect.yaml` asks for it), and the server crashes one whose heartbeats have stopped, which frees its place.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation

HEARTBEAT_SECONDS = 30
"""Between two heartbeats: Prefect's least, set as PREFECT_FLOWS_HEARTBEAT_FREQUENCY where runs are started."""
SILENCE_SECONDS = 150
"""Without a heartbeat until a run is crashed; a server that is away for two minutes crashes nobody."""
START_SECONDS = 600
"""Between a worker's taking a run and the run's start, until it is crashed."""
TAG = "coala"
"""Of all deployments of `prefect.yaml`; other people's runs send heartbeats at other times."""

_ENDED = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut")
_WAITING = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused", "Suspended")


def watch_for_zombies(silence: float = SILENCE_SECONDS, start: float = START_SECONDS) -> list[str]:
    """Have the server crash runs that fell silent or were taken and never started; safe to repeat.

    Automations that are as they should be stay untouched, also where somebody has switched them off.

    Parameters
    ----------
    silence : float
        Seconds after the last heartbeat, at least two heartbeats.
    start : float
        Seconds between a worker's taking a run and its start, above 0.

    Returns
    -------
    list of str
        Names of the automations that were made or changed.

    Raises
    ------
    ValueError
        If `silence` or `start` is too short.
    """
    if silence < 2 * HEARTBEAT_SECONDS or start <= 0:
        raise ValueError(
            f"`watch_for_zombies(silence=..., start=...)` needs at least {2 * HEARTBEAT_SECONDS} s of silence and a "
            f"start above 0 s, got {silence:g} and {start:g}; heartbeats come every {HEARTBEAT_SECONDS} s."
        )
    wanted = [_silent(silence), _never_started(start)]
    with get_client(sync_client=True) as client:
        return [automation.name for automation in wanted if _settle(client, automation)]


def _silent(seconds: float) -> AutomationCore:
    """Crash a run that stops sending heartbeats without having ended."""
    beat = "prefect.flow-run.heartbeat"
    return _crashing(
        "coala: crash runs that fell silent",
        after={beat},
        expect={beat, *_events(_ENDED), *_events(_WAITING)},
        seconds=seconds,
        message=f"No heartbeat for {seconds:g} s: the process of this run was killed, or its machine went away.",
    )


def _never_started(seconds: float) -> AutomationCore:
    """Crash a run that a worker took and then died."""
    return _crashing(
        "coala: crash runs that never started",
        after=_events(("Pending", "Submitting")),
        expect=_events(("Running", *_ENDED, *_WAITING)),
        seconds=seconds,
        message=f"Not started within {seconds:g} s: the worker that took this run went away.",
    )


def _crashing(name: str, after: set[str], expect: set[str], seconds: float, message: str) -> AutomationCore:
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after=after,
        expect=expect,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
        ),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    action = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)
    return AutomationCore(name=name, description=message, trigger=trigger, actions=[action], tags=[TAG])


def _events(states: tuple[str, ...]) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _settle(client: SyncPrefectClient, wanted: AutomationCore) -> bool:
    """Make the automation, or change the one there is; two that were made at the same time become one."""
    found: list[Automation] = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return True
    first, *more = sorted(found, key=lambda automation: str(automation.id))
    for other in more:
        client.delete_automation(other.id)
    if _rule(first) == _rule(wanted):
        return bool(more)
    # A changed automation forgets which runs it was watching, so an equal one is left alone.
    client.update_automation(first.id, wanted.model_copy(update={"enabled": first.enabled}))
    return True


def _rule(automation: AutomationCore) -> dict[str, Any]:
    """State what an automation does, without what the server adds."""
    return {
        "trigger": automation.trigger.model_dump(exclude={"id"}),
        "actions": [action.model_dump(exclude={"id"}) for action in automation.actions],
        "description": automation.description,
    }


if __name__ == "__main__":
    watch_for_zombies()
