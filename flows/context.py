"""What a flow asks about the run that it is in."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect.runtime import flow_run

from coala_core.config import RecordedConfig

Config = TypeVar("Config", bound=RecordedConfig)


def parameter(kind: type[Config]) -> Config:
    """Read the parameter `config` of the flow run at hand, which may still be plain JSON."""
    config: Any = flow_run.parameters["config"]
    return config if isinstance(config, kind) else kind.model_validate(config)


def prefect_tags() -> dict[str, str]:
    """Tags by which an MLflow run leads back to its Prefect run."""
    tags = {"prefect.flow_run_id": flow_run.id, "prefect.parent_flow_run_id": flow_run.parent_flow_run_id}
    # A temporary server has no page, and Prefect then gives a URL that begins with "None".
    if flow_run.ui_url and flow_run.ui_url.startswith("http"):
        tags["prefect.flow_run_url"] = flow_run.ui_url
    return {name: str(value) for name, value in tags.items() if value}
