import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database that MLflow has initialised, which takes it seconds; tests copy the file."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def make_store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a store with its own initialised tracking database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name: str) -> Path:
        store = tmp_path / name
        (store / "mlflow").mkdir(parents=True)
        shutil.copy(empty_database, store / "mlflow" / "mlflow.db")
        return store

    return make


@pytest.fixture
def store(make_store: Callable[[str], Path]) -> Path:
    return make_store("store")
