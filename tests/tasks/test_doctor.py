import os
from pathlib import Path

import pytest

from tasks import doctor
from tasks.doctor import Check, diagnose
from tasks.doctor_check import masked
from tests.tasks.local_http import closed_port

NAMES = [
    "Python",
    "packages",
    "known clashes",
    "PyTorch",
    "CuPy",
    "language model",
    "Prefect server",
    "Prefect key",
    "MLflow",
    "store",
    "hardware",
    "telemetry",
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "profiles.toml"))


# The whole diagnosis


def test_diagnosis_has_every_check_once_and_a_remedy_for_every_problem(tmp_path: Path) -> None:
    store = tmp_path / "store"
    checks = diagnose(store)
    assert [check.name for check in checks] == NAMES
    assert all(check.finding for check in checks)
    assert all(check.remedy for check in checks if check.status == "problem")
    assert not store.exists()


@pytest.mark.parametrize("error", [ImportError("broken wheel"), RuntimeError("driver"), KeyError("x"), OSError("libc")])
def test_a_failing_probe_is_a_problem_and_hides_no_other(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Check:
        raise error

    monkeypatch.setattr(doctor, "check_torch", fail)
    checks = {check.name: check for check in diagnose(tmp_path)}
    assert list(checks) == NAMES
    assert checks["PyTorch"].status == "problem"
    assert type(error).__name__ in checks["PyTorch"].finding
    assert checks["store"].status == "ok"


def test_a_defect_of_another_kind_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Check:
        raise AssertionError("a defect of ours")

    monkeypatch.setattr(doctor, "check_hardware", fail)
    with pytest.raises(AssertionError, match="a defect of ours"):
        diagnose(tmp_path)


def test_a_problem_needs_a_remedy() -> None:
    with pytest.raises(ValueError, match="must have a remedy"):
        Check("x", "problem", "broken")


# Credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://ann:hunter2@host:80/api down", "http://***@host:80/api down"),
        ("http://hunter2@host", "http://***@host"),
        ("http://ann:hun@ter2@host", "http://***@host"),
        ("http://ann:hun/ter2@host", "http://***@host"),
        ("postgresql://host/db?password=hunter2&x=1", "postgresql://host/db?password=***&x=1"),
        ("PREFECT_API_KEY=hunter2", "PREFECT_API_KEY=***"),
        ("ann:hunter2@host:5000", "***@host:5000"),
        ("http://host:80/api and layers=30", "http://host:80/api and layers=30"),
    ],
)
def test_masked_hides_credentials_and_nothing_else(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_no_credential_reaches_the_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("PREFECT_API_URL", f"http://ann:hunter2@127.0.0.1:{port}/api")
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    checks = {check.name: check for check in diagnose(tmp_path)}
    assert "hunter2" not in repr(checks)
    assert f"***@127.0.0.1:{port}" in checks["Prefect server"].finding
    assert checks["MLflow"].status == "problem"
