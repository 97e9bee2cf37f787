"""The repository's `prefect.yaml` on a real Prefect server: what is deployed, and what its form refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.flows.conftest import clean_environment, free_port
from tests.lessons import quick_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]


class Server:
    """A running server, asked over HTTP and by Prefect's own command."""

    def __init__(self, home: Path, port: int) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = clean_environment(
            PREFECT_HOME=str(home), PREFECT_API_URL=self.api, PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"
        )

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.api}{path}", data=data, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def prefect(self, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run Prefect's command, in the repository's root unless a folder is given."""
        return subprocess.run(
            [*PREFECT, *arguments],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def is_up(self) -> bool:
        try:
            return bool(self.ask("/health"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the repository's deployments, gone afterwards whatever happens."""
    port = free_port()
    server = Server(tmp_path_factory.mktemp("prefect"), port)
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            env=server.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while not server.is_up():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        for arguments in (
            ("work-pool", "create", "coala", "--type", "process", "--overwrite"),
            ("--no-prompt", "deploy", "--all"),
        ):
            done = server.prefect(*arguments)
            assert done.returncode == 0, done.stdout + done.stderr
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture(scope="module")
def deployment(server: Server) -> Any:
    return server.ask("/deployments/name/coala/pipeline")


def test_the_deployment_runs_this_repository_s_flow_one_at_a_time(deployment: Any) -> None:
    assert deployment["entrypoint"] == "flows/pipeline.py:coala_pipeline"
    assert deployment["work_pool_name"] == "coala"
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert "coala" in deployment["tags"]


def test_the_schedule_is_there_and_off(server: Server, deployment: Any) -> None:
    (schedule,) = deployment["schedules"]
    assert (schedule["slug"], schedule["active"]) == ("nightly", False)
    assert schedule["schedule"]["cron"] == "0 3 * * *"
    assert runs_of(server, deployment) == 0


def runs_of(server: Server, deployment: Any) -> int:
    """Number of flow runs that the deployment has, scheduled ones included."""
    count = server.ask("/flow_runs/count", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    return int(count)


def test_deploying_again_changes_nothing(server: Server, deployment: Any) -> None:
    done = server.prefect("--no-prompt", "deploy", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    again = server.ask("/deployments/name/coala/pipeline")
    assert (again["id"], len(again["schedules"]), again["schedules"][0]["active"]) == (deployment["id"], 1, False)


def test_the_form_has_descriptions_ranges_choices_and_defaults(deployment: Any) -> None:
    definitions = deployment["parameter_openapi_schema"]["definitions"]
    sections = {"TripletsConfig", "SplitConfig", "EmbedConfig", "SolveConfig", "FinetuneConfig", "EvaluateConfig"}
    assert sections <= set(definitions)
    undescribed = [
        f"{section}.{name}"
        for section, model in definitions.items()
        for name, field in model["properties"].items()
        if not field.get("description")
    ]
    assert undescribed == []
    gates = definitions["SolveConfig"]["properties"]["gates"]
    assert (gates["type"], gates["minimum"], gates["maximum"], gates["default"]) == ("integer", 1, 4096, 50)
    embed = definitions["EmbedConfig"]["properties"]
    assert (embed["poolings"]["items"]["enum"], embed["layers"]["items"]["minimum"]) == (["mean", "last"], 1)
    assert definitions["SplitConfig"]["properties"]["train"]["exclusiveMaximum"] == 1
    assert all(model["additionalProperties"] is False for model in definitions.values())


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"solve": {"gates": 0}}, "0 is less than the minimum of 1"),
        ({"embed": {"poolings": ["max"]}}, "'max' is not one of ['mean', 'last']"),
        ({"solve": {"gatez": 3}}, "gatez"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_before_there_is_a_run(
    server: Server, deployment: Any, config: dict[str, Any], sentence: str
) -> None:
    done = server.prefect("deployment", "run", "coala/pipeline", "--param", f"config={json.dumps(config)}")
    assert done.returncode != 0
    assert sentence in " ".join((done.stdout + done.stderr).split())
    assert runs_of(server, deployment) == 0


def test_a_worker_started_elsewhere_runs_it(
    server: Server, deployment: Any, lessons: Path, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store = make_store("store")
    config = quick_config(store, lessons, model).model_dump(mode="json", exclude_unset=True)
    made = server.prefect("deployment", "run", "coala/pipeline", "--param", f"config={json.dumps(config)}")
    assert made.returncode == 0, made.stdout + made.stderr
    assert runs_of(server, deployment) == 1
    worker = server.prefect("worker", "start", "--pool", "coala", "--run-once", folder=tmp_path)
    assert worker.returncode == 0, worker.stdout + worker.stderr
    (run,) = server.ask("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    assert (run["state"]["type"], run["name"]) == ("COMPLETED", "lessons.jsonl, llama, seed 0"), worker.stdout
    assert len(list(store.glob("evaluate/*/manifest.json"))) == 1
