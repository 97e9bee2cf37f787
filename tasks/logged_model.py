"""Heads as models of MLflow: plain safetensors and JSON, with a file of code that serves them.

A model is found again by the digest of the head's artifact, so it is delivered once, however often a run
is replayed or a head is reused. Nothing is pickled: MLflow keeps `tasks/served_head.py` as text.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coala_core import __version__
from coala_core.heads import CARD, WEIGHTS
from coala_core.scorer import EMBEDDING
from tasks.journal import Event

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.tracking import MlflowClient

HEAD_TAG = "coala.sha256"
MODEL_TYPE = "preference head"

SERVING = "mlflow numpy pandas psutil pyarrow pydantic pyyaml safetensors scipy tokenizers torch transformers".split()
"""Distributions that serving needs beside this project, which must be installed from its own folder: on the package
index its name is another project's."""

EXAMPLE = {
    "prompt": [[{"role": "user", "content": "What is a half of a half?"}]],
    "chosen": ["Cut a cake into two, then one piece into two again. Which part of the cake is that?"],
    "rejected": ["A quarter."],
}


def requirements() -> list[str]:
    """Versions of this environment for whoever serves the model elsewhere."""
    # A local part, such as that of 2.13.0+cpu, is on no package index.
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in SERVING]


def signature() -> ModelSignature:
    """State what the served head takes and gives.

    A row is a pair of texts (``prompt``, ``chosen``, ``rejected``, each as text or as messages, hence of any type)
    or a pair of features.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    texts = [ColSpec(AnyType(), name, required=False) for name in ("prompt", "chosen", "rejected")]
    features = [ColSpec(Array(DataType.double), f"{side}_features", required=False) for side in ("chosen", "rejected")]
    scores = [ColSpec(DataType.double, f"{side}_score") for side in ("chosen", "rejected")]
    return ModelSignature(
        inputs=Schema([*texts, *features]), outputs=Schema([*scores, ColSpec(DataType.string, "preferred")])
    )


def deliver_model(client: MlflowClient, run: str, parent: str, event: Event, store: Path) -> str:
    """Make a head a model and an output of its run and of the parent, unless it is; returns MLflow's id of it.

    Raises
    ------
    FileNotFoundError
        If the head's files are gone.
    """
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(run).info.experiment_id
    models = client.search_logged_models([experiment], f"tags.`{HEAD_TAG}` = '{event['sha256']}'", max_results=1)
    model = models[0] if models else _create(client, run, experiment, event)
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            _save(Path(folder) / "model", model, run, event, store)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    for name in (run, parent):
        _link(client, name, model.model_id)
    return str(model.model_id)


def deliver_scores(client: MlflowClient, run: str, model: str, event: Event) -> None:
    """Log metrics of a model on a data set, which also makes them metrics of its run."""
    from mlflow.entities import Metric

    name, digest = event["dataset"]
    # MLflow's digest column holds 36 characters.
    known = {"model_id": model, "dataset_name": name, "dataset_digest": digest[:36], "run_id": run}
    points = [Metric(key, float(value), when, step, **known) for key, value, when, step in event["metrics"]]
    client.log_batch(run, metrics=points)


def _link(client: MlflowClient, run: str, model: str) -> None:
    """Make a model an output of a run; MLflow would list it twice if told twice."""
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run).outputs
    if model not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run, [LoggedModelOutput(model, step=0)])


def _create(client: MlflowClient, run: str, experiment: str, event: Event) -> Any:
    tags = {**event["tags"], HEAD_TAG: event["sha256"]}
    return client.create_logged_model(experiment, event["name"], run, tags, event["params"], MODEL_TYPE)


def _save(target: Path, model: Any, run: str, event: Event, store: Path) -> None:
    """Write the model's folder as MLflow wants it."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import Model

    head = store / event["folder"]
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "head"
        parts.mkdir()
        for name in (WEIGHTS, CARD):
            shutil.copyfile(head / name, parts / name)
        (parts / EMBEDDING).write_text(json.dumps(event["embedding"], indent=1, sort_keys=True) + "\n")
        pyfunc.save_model(
            path=str(target),
            python_model=str(Path(__file__).with_name("served_head.py")),
            artifacts={"head": str(parts)},
            signature=signature(),
            input_example=pd.DataFrame(EXAMPLE),
            pip_requirements=requirements(),
            metadata={HEAD_TAG: event["sha256"], "coala.version": __version__},
            mlflow_model=Model(
                artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run, model_id=model.model_id
            ),
        )
