"""Deployments of one machine, without a work pool: `coala serve` registers them and runs what is due."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from flows.zombies import watch_for_zombies

DEFINITIONS = Path(__file__).parents[1] / "prefect.yaml"
"""Where deployments are defined, for workers and for `coala serve` alike."""


def served_deployments(definitions: Path = DEFINITIONS) -> list[RunnerDeployment]:
    """Read the deployments of a `prefect.yaml` for serving; its work pools have no say.

    Parameters
    ----------
    definitions : Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file, as where the project was installed without its folder.
    """
    if not definitions.exists():
        raise FileNotFoundError(
            f"`coala serve` needs the project's prefect.yaml, got no file at {definitions}; "
            "install the project in place (`pip install -e .`)."
        )
    content = yaml.safe_load(definitions.read_text(encoding="utf-8"))
    return [_deployment(entry) for entry in content["deployments"]]


def serve_deployments(limit: int) -> None:
    """Register all deployments on the Prefect server, and run what is scheduled or asked for until interrupted.

    A deployment that the server has keeps its schedules as people left them in the UI, also over a restart; only a
    new one brings the examples of `prefect.yaml`.

    Parameters
    ----------
    limit : int
        Runs at the same time, at least 1.

    Raises
    ------
    ValueError
        If `limit` is below 1, or no Prefect server is named.
    """
    if limit < 1:
        raise ValueError(f"`coala serve --limit` must be at least 1, got {limit}; name how many runs may go at once.")
    if not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            "`coala serve` needs a Prefect server that stays, got no PREFECT_API_URL; start `prefect server start` "
            "and set PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    deployments = served_deployments()
    keep_schedules(deployments)
    watch_for_zombies()
    # Prefect would otherwise switch every schedule off when this process ends.
    serve(*deployments, pause_on_shutdown=False, limit=limit)


def keep_schedules(deployments: Iterable[RunnerDeployment]) -> None:
    """Leave the schedules of deployments alone that the server has."""
    with get_client(sync_client=True) as client:
        for deployment in deployments:
            try:
                client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
            except ObjectNotFound:
                continue
            # What is not set is not sent; None would be refused, an empty list would delete them.
            deployment.schedules = None
            deployment.model_fields_set.discard("schedules")


def _deployment(entry: Mapping[str, Any]) -> RunnerDeployment:
    """Turn an entry of the file into a deployment whose flow is found by module, wherever this process stands."""
    path, _, name = entry["entrypoint"].partition(":")
    module = ".".join(PurePosixPath(path).with_suffix("").parts)
    flow: Flow[..., Any] = getattr(importlib.import_module(module), name)
    limit = entry["concurrency_limit"]
    schedules = [
        Schedule(cron=each["cron"], timezone=each["timezone"], active=each["active"], slug=each["slug"])
        for each in entry["schedules"]
    ]
    deployment = flow.to_deployment(
        entry["name"],
        schedules=schedules,
        parameters=entry.get("parameters"),
        description=entry["description"],
        tags=entry["tags"],
        concurrency_limit=ConcurrencyLimitConfig(**limit),
        enforce_parameter_schema=entry["enforce_parameter_schema"],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine within a running loop, which there is not
    return deployment
