"""Small heads on disk, and what MLflow has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel
from mlflow.tracking import MlflowClient

from coala_core.cvxnn.network import Head
from coala_core.heads import write_head
from coala_core.storage import Store
from tasks.events import HeadModel
from tasks.tracking import store_uri

EMBEDDING: dict[str, Any] = {
    "model": "builtin",
    "revision": None,
    "fingerprint": "f" * 64,
    "layer": 2,
    "pooling": "mean",
    "max_tokens": 64,
    "dtype": "float32",
}


def small_head(seed: int) -> Head:
    """Two neurons on three features."""
    rng = np.random.default_rng(seed)
    return Head(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2,), (2,))))


def head_in(store: Path, stage: str = "finetune", seed: int = 0) -> HeadModel:
    """A head as a stage would leave it in the store."""
    shelf = Store(store)
    workspace = shelf.workspace(stage, f"{seed:024x}")
    write_head(workspace, small_head(seed), {"phase": 2})
    made = shelf.seal(workspace, stage, f"{seed:024x}", {}, {}, 0.0)
    return HeadModel(
        f"head of {stage}", made.path, made.sha256, EMBEDDING, {stage: {"beta": 1.5}}, {"coala.key": made.key}
    )


def models(store: Path, uri: str | None = None) -> list[LoggedModel]:
    """All models of all experiments."""
    client = MlflowClient(tracking_uri=uri or store_uri(store))
    return list(client.search_logged_models([e.experiment_id for e in client.search_experiments()]))


def outputs(uri: str, run_id: str) -> list[str]:
    """Models that a run has as outputs, as often as it has them."""
    found = MlflowClient(tracking_uri=uri).get_run(run_id).outputs
    return [output.model_id for output in found.model_outputs] if found else []
