"""Read runs back from MLflow, as a user would, for comparison."""

from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient


def runs(uri: str) -> dict[str, Run]:
    """All runs of all experiments by name; two of one name are an error."""
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names), names
    return {run.info.run_name: run for run in found}


def curve(uri: str, run: Run, name: str) -> list[tuple[int, float, int]]:
    """Every stored point (step, value, time) of a metric."""
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted((m.step, m.value, m.timestamp) for m in history)


def artifacts(uri: str, run: Run, folder: Path) -> dict[str, bytes]:
    """Content of the run's top-level artifacts."""
    client = MlflowClient(tracking_uri=uri)
    folder.mkdir(parents=True, exist_ok=True)
    names = [item.path for item in client.list_artifacts(run.info.run_id)]
    return {name: Path(client.download_artifacts(run.info.run_id, name, str(folder))).read_bytes() for name in names}


def snapshot(uri: str, folder: Path) -> dict[str, Any]:
    """Everything recorded, without the ids that each server invents."""
    state = {}
    for name, run in runs(uri).items():
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        state[name] = {
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": tags,
            "metrics": {key: curve(uri, run, key) for key in run.data.metrics},
            "inputs": sorted((i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs),
            "artifacts": artifacts(uri, run, folder / name),
        }
    return state
