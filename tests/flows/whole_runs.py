"""Whole runs in this process, and what Prefect and MLflow show of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from coala_core.config import PipelineConfig
from tasks.summary import RunSummary

STAGES = ["triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"]


class PrefectView(NamedTuple):
    """A flow run as its page shows it."""

    run: Any
    tasks: dict[str, Any]
    artifacts: dict[str, Any]
    logs: list[str]


def pipeline(config: PipelineConfig) -> RunSummary:
    """Run the flow; imported late, because Prefect takes a second that other tests need not wait for."""
    from flows.pipeline import coala_pipeline

    return coala_pipeline(config)


def last_flow_run() -> PrefectView:
    """Read the newest flow run through the client, as the pages do."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
        LogFilter,
        LogFilterFlowRunId,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    by_stage = {task.name.rpartition("-")[0]: task for task in sorted(tasks, key=lambda task: task.created)}
    return PrefectView(run, by_stage, {a.key: a for a in artifacts}, [log.message for log in logs])


def mlflow_runs(store: Path) -> list[Any]:
    """All runs of the store's database, the parents first, each followed by its children in order."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return sorted(found, key=lambda run: run.info.start_time)


def parents(store: Path) -> list[Any]:
    """Parent runs, the oldest first."""
    return [run for run in mlflow_runs(store) if "mlflow.parentRunId" not in run.data.tags]


def children(store: Path, parent: Any) -> dict[str, Any]:
    """A parent's children by name."""
    found = [run for run in mlflow_runs(store) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}
