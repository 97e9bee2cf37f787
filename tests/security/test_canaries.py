"""Secrets in the environment and in addresses, and what whole runs leave of them: nothing."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flows.conftest import Outcome, run_coala
from tests.flows.prefect_server import running_server
from tests.lessons import QUICK
from tests.security.canaries import leaks, pickle_kind, pickles, planted

slow = pytest.mark.slow


class Aftermath(NamedTuple):
    """What runs with planted secrets left."""

    secrets: dict[str, str]
    store: Path
    home: Path
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="module")
def aftermath(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, lessons: Path, tiny_models: dict[str, Path]
) -> Iterator[Aftermath]:
    """A run that succeeds, runs that fail in different depths, and refusals, all on one server and store."""
    folder, model = tmp_path_factory.mktemp("canaries"), tiny_models["llama"]
    store = folder / "store"
    (store / "mlflow").mkdir(parents=True)
    shutil.copy(empty_database, store / "mlflow" / "mlflow.db")
    config = folder / "run.yaml"
    config.write_text(json.dumps({**QUICK, "store": str(store)}))
    broken = folder / "broken"
    shutil.copytree(model, broken)
    for weights in broken.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])  # a traceback from deep inside
    secrets = planted()
    user = secrets["MLFLOW_TRACKING_PASSWORD"]
    with running_server(folder) as server:
        own = {name: value for name, value in server.environment.items() if name.startswith("PREFECT_")}
        environment = own | secrets | {"MLFLOW_TRACKING_USERNAME": "ann", "PREFECT_LOGGING_EXTRA_LOGGERS": "coala"}

        def run(*more: object, data: object = lessons, embed: object = model, **extra: str) -> Outcome:
            arguments = ["run", "--config", config, "--conversations", data, "--model", embed, *more]
            return run_coala(*arguments, **(environment | extra))

        outcomes = {
            "succeeds": run(),
            "fails in embed": run(embed=broken),
            "fails on data": run(data=folder / "none.jsonl"),
            "secret in the cache's address": run("--set", f"embed.cache=s3://ann:{user}@bucket/features"),
            "secret in the conversations' address": run(data=f"http://ann:{user}@127.0.0.1:9/a.jsonl"),
            "secret in MLflow's address": run(MLFLOW_TRACKING_URI=f"http://ann:{user}@127.0.0.1:9"),
            "MLflow is away": run("--seed", "5", MLFLOW_TRACKING_URI="http://127.0.0.1:9"),
            "doctor": run_coala("doctor", "--store", store, "--model", model, **environment),
            "gc": run_coala("gc", "--dry-run", "--json", "--store", store, **environment),
        }
        yield Aftermath(secrets, store, folder, outcomes)


@slow
def test_the_runs_went_as_they_were_meant_to(aftermath: Aftermath) -> None:
    statuses = {name: outcome.status for name, outcome in aftermath.outcomes.items()}
    tracebacks = {name for name, outcome in aftermath.outcomes.items() if "Traceback" in outcome.out + outcome.err}
    assert (statuses["succeeds"], statuses["MLflow is away"], statuses["gc"]) == (0, 0, 0), aftermath.outcomes
    failing = {"fails in embed", "fails on data", *(name for name in statuses if name.startswith("secret"))}
    assert {name for name in failing if statuses[name] == 0} == set()
    assert "fails in embed" in tracebacks  # else the search would not cover any
    assert list((aftermath.store / "evaluate").iterdir()) != []


@slow
def test_no_secret_is_in_any_file_database_log_or_on_the_terminal(aftermath: Aftermath) -> None:
    texts = {name: outcome.out + outcome.err for name, outcome in aftermath.outcomes.items()}
    assert (aftermath.home / "home" / "prefect.db").stat().st_size > 100_000
    assert (aftermath.store / "mlflow" / "mlflow.db").stat().st_size > 100_000
    assert leaks(aftermath.secrets, [aftermath.home], texts) == []


@slow
def test_no_run_leaves_a_pickle(aftermath: Aftermath) -> None:
    assert list(pickles(aftermath.store)) == []
    assert list(pickles(aftermath.home / "home" / "storage")) == []
    assert not [
        path for path in aftermath.store.rglob("*") if path.suffix in (".bin", ".pkl", ".pt", ".pth", ".joblib")
    ]


@slow
def test_the_log_of_each_run_has_its_id_and_the_failure(aftermath: Aftermath) -> None:
    runs = {path.stem for path in (aftermath.store / "tracking").glob("*.jsonl")}
    logs = {path.stem: path.read_text().splitlines() for path in (aftermath.store / "logs").glob("*.jsonl")}
    assert set(logs) == runs
    entries = [json.loads(line) for lines in logs.values() for line in lines]
    assert {entry["run_id"] for entry in entries} == runs
    assert all(entry["flow_run_id"] for entry in entries)
    assert {"triplets", "split", "embed", "solve", "finetune", "evaluate"} <= {entry["stage"] for entry in entries}
    assert any("exception" in entry for entry in entries)


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    secrets = {"A": "canary-one-0123456789"}
    (tmp_path / ".hidden").mkdir()
    for number, content in enumerate(
        (b"x canary-one-0123456789 y", b64encode(b"ann:canary-one-0123456789"), b64encode(b"b:canary-one-0123456789."))
    ):
        (tmp_path / ".hidden" / str(number)).write_bytes(content)
    (tmp_path / "clean").write_bytes(b"canary-one-012345678")
    assert len(leaks(secrets, [tmp_path], {"terminal": "canary%2Done%2D0123456789", "clean": "canary"})) == 4


def test_the_search_finds_pickles(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        assert pickle_kind(pickle.dumps({"a": [1, 2]}, protocol)) == "a pickle"
        text = json.dumps({"data": b64encode(pickle.dumps({"a": 1}, protocol)).decode()})
        assert pickle_kind(text.encode()) == "a pickle as base64"
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1]))
    assert pickle_kind((tmp_path / "weights.pt").read_bytes()) == "a pickle in a zip archive"
    assert pickle_kind(b"\x80 no pickle") is None
    assert pickle_kind(b"{}") is None
