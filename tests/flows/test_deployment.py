"""The repository's `prefect.yaml` on a real Prefect server: what is deployed, and what its form refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.prefect_server import NAMES, Server, running_server
from tests.lessons import quick_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the repository's deployments."""
    with running_server(tmp_path_factory.mktemp("prefect")) as server:
        for arguments in (
            ("variable", "set", "coala_work_pool", "coala"),
            ("work-pool", "create", "coala", "--type", "process", "--overwrite"),
            ("--no-prompt", "deploy", "--all"),
        ):
            done = server.prefect(*arguments)
            assert done.returncode == 0, done.stdout + done.stderr
        yield server


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


def test_every_deployment_says_what_it_does_and_keeps_to_its_limit(server: Server) -> None:
    found = {f"{flow_name(server, each)}/{each['name']}": each for each in server.ask("/deployments/filter", {})}
    assert set(found) == NAMES
    for name, each in found.items():
        assert len(each["description"]) > 60, name
        assert "coala" in each["tags"]
        assert each["enforce_parameter_schema"] is True
        assert each["work_pool_name"] == "coala"
        assert each["global_concurrency_limit"]["limit"] == 1
        assert each["concurrency_options"]["collision_strategy"] in ("ENQUEUE", "CANCEL_NEW")
        # Which run to promote is known when there is one.
        assert len(each["schedules"]) == (name != "coala-promote/promote")
        assert all(schedule["slug"] and not schedule["active"] for schedule in each["schedules"])


def flow_name(server: Server, deployment: Any) -> str:
    return str(server.ask(f"/flows/{deployment['flow_id']}")["name"])


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
