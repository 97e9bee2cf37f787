"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Before anything heavy is imported: no test may wait for the network, phone home or fill the machine.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.lessons import write_lessons
from tests.tiny_models import ARCHITECTURES, save_tiny_model

# A busy machine is no finding.
hypothesis.settings.register_profile("coala", deadline=None)
hypothesis.settings.load_profile("coala")

SERVICES = (
    "tests/faults/",
    "tests/security/",
    "tests/services/",
    "tests/tasks/test_mlflow_service.py",
    "tests/ui/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests that start whole services, so that they can be chosen or left out together."""
    for item in items:
        if item.nodeid.startswith(SERVICES) and item.get_closest_marker("slow"):
            item.add_marker("service")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models by architecture: llama (BOS), gpt2 (plain), qwen3 (ChatML)."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_tiny_model(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 conversations of four replies: 72 pairs."""
    return write_lessons(tmp_path_factory.mktemp("lessons") / "lessons.jsonl")


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


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server for the session, in a folder of its own."""
    from prefect.settings import PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    updates = {PREFECT_HOME: home, PREFECT_LOCAL_STORAGE_PATH: home / "storage"}
    with temporary_settings(updates=updates), prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Let this process and its children be interrupted, also where the tests were started in the background.

    A shell starts background jobs with SIGINT ignored, and that is inherited.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
