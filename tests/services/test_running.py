"""`coala services` for real: PostgreSQL, Prefect, MLflow and a worker, their logins, a run, their deaths, their end."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from flows.services.deploy import deploy
from flows.services.processes import find_process, marked
from flows.services.programs import NAMES, pid_file
from tests.lessons import quick_config
from tests.services.running import Services, need_services, store_for_services, wait_until

pytestmark = pytest.mark.slow

QUEUE_FLOW = """
import time

from prefect import flow


@flow
def short(number: int) -> None:
    time.sleep(2)
"""
QUEUE_DEPLOYMENT = """
deployments:
  - name: queue
    entrypoint: queue_flow.py:short
    concurrency_limit: {limit: 2, collision_strategy: ENQUEUE}
    work_pool: {name: coala}
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    need_services()
    with store_for_services() as services:
        services.started = services.run("up", "--detach")
        yield services


def test_both_pages_answer_within_90_seconds(services: Services) -> None:
    seconds = {name: int(found) for name, found in re.findall(r"(\w+) answers after (\d+) s", services.started)}
    assert set(seconds) == set(NAMES)
    assert max(seconds["prefect"], seconds["mlflow"]) < 90
    assert "deployed: pipeline" in services.started


def test_prefect_answers_those_who_log_in_only(services: Services) -> None:
    url, login = f"{services.environment.prefect_url}/api/admin/version", services.environment.prefect_login()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=(login[0], "wrong")).status_code == 401
    assert httpx.get(url, auth=login).status_code == 200
    assert httpx.get(f"{services.environment.prefect_url}/ui-settings").json()["auth"] == "BASIC"
    assert httpx.get(services.environment.prefect_url, follow_redirects=True).status_code == 200  # the page that asks


def test_mlflow_answers_those_who_log_in_only(services: Services) -> None:
    page = services.environment.mlflow_url
    search = f"{page}/api/2.0/mlflow/experiments/search?max_results=1"
    login = ("coala", services.secrets["COALA_MLFLOW_PASSWORD"])
    artifacts = f"{page}/api/2.0/mlflow-artifacts/artifacts"
    for url in (page, search, artifacts, f"{page}/signup"):
        assert httpx.get(url).status_code == 401, url
        assert httpx.get(url, auth=("admin", "password1234")).status_code == 401, url
        assert httpx.get(url, auth=("coala", "password1234")).status_code == 401, url
    assert httpx.get(page, auth=login).status_code == 200
    assert httpx.get(search, auth=login).status_code == 200


def test_mlflow_refuses_other_hosts_and_other_pages(services: Services) -> None:
    login = ("coala", services.secrets["COALA_MLFLOW_PASSWORD"])
    rebound = httpx.get(services.environment.mlflow_url, auth=login, headers={"Host": "evil.example"})
    assert (rebound.status_code, "DNS rebinding" in rebound.text) == (403, True)
    url = f"{services.environment.mlflow_url}/api/2.0/mlflow/experiments/create"
    crossed = httpx.post(url, auth=login, json={"name": "x"}, headers={"Origin": "http://evil.example"})
    assert crossed.status_code == 403


def test_each_role_has_its_own_databases_only(services: Services) -> None:
    assert services.sql("prefect", "prefect", "select count(*) from flow").returncode == 0
    for role, database in (("prefect", "mlflow"), ("prefect", "mlflow_auth"), ("mlflow", "prefect")):
        assert "permission denied" in services.sql(role, database, "select 1").stderr


def listening() -> set[int]:
    return {each.laddr.port for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN}


def test_everything_listens_on_the_loopback_only(services: Services) -> None:
    found = [each.laddr for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert {where.ip for where in found if where.port in services.ports.values()} == {"127.0.0.1"}
    ours = {process.pid for process in marked(services.folder)}
    open_here = {each.laddr.ip for each in psutil.net_connections("tcp") if each.pid in ours and not each.raddr}
    assert open_here == {"127.0.0.1"}


def test_a_run_goes_through_worker_postgres_and_the_artifact_proxy(
    services: Services, lessons: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick_config(services.store, lessons, tiny_models["llama"])
    deployment = services.prefect("/deployments/name/coala/pipeline")
    content = {"parameters": {"config": config.model_dump(mode="json", exclude_unset=True)}}
    run = services.prefect(f"/deployments/{deployment['id']}/create_flow_run", content)
    state = wait_until(lambda: final_state(services, run["id"]), 300, "the run's end")
    assert state == "COMPLETED", services.logs()
    seen = services.sql("prefect", "prefect", f"select state_type from flow_run where id = '{run['id']}'")
    assert seen.stdout.strip() == "COMPLETED"
    for name, value in services.environment.client().items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(services.environment.mlflow_url)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments)
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert {each.info.artifact_uri.partition(":")[0] for each in runs} == {"mlflow-artifacts"}
    files = [(each.info.run_id, file) for each in runs for file in client.list_artifacts(each.info.run_id)]
    whole = [(run_id, file.path) for run_id, file in files if not file.is_dir]
    assert whole
    run_id, path = whole[0]
    (stored,) = (services.folder / "mlflow").rglob(f"{run_id}/artifacts/{path}")
    assert Path(client.download_artifacts(run_id, path)).read_bytes() == stored.read_bytes()


def final_state(services: Services, run_id: str) -> str | None:
    state = services.prefect(f"/flow_runs/{run_id}")["state"]["type"]
    return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def test_a_schedule_switched_on_stays_on(services: Services) -> None:
    deployment = services.prefect("/deployments/name/coala/pipeline")
    (schedule,) = deployment["schedules"]
    path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
    services.prefect(path, {"active": True}, method="PATCH")
    said = services.run("up", "--detach")
    assert "deployed: nothing new" in said
    assert services.prefect("/deployments/name/coala/pipeline")["schedules"][0]["active"] is True
    services.prefect(path, {"active": False}, method="PATCH")


def test_20_queued_runs_under_a_limit_of_2_all_finish(services: Services, tmp_path: Path) -> None:
    (tmp_path / "queue_flow.py").write_text(QUEUE_FLOW)
    (tmp_path / "prefect.yaml").write_text(QUEUE_DEPLOYMENT)
    assert deploy(services.environment.client(), file=tmp_path / "prefect.yaml") == ["queue"]
    deployment = services.prefect("/deployments/name/short/queue")
    path = f"/deployments/{deployment['id']}/create_flow_run"
    runs = [services.prefect(path, {"parameters": {"number": number}})["id"] for number in range(20)]
    body = {"flow_runs": {"id": {"any_": runs}}}

    def found() -> list[Any]:
        return list(services.prefect("/flow_runs/filter", body))

    wait_until(lambda: all(run["state"]["type"] == "COMPLETED" for run in found()), 900, "twenty ends")
    times = [(run["start_time"], run["end_time"]) for run in found()]
    assert len(times) == 20
    assert max(sum(start <= moment < end for start, end in times) for moment, _ in times) <= 2


@pytest.mark.parametrize("name", ["mlflow", "postgres", "prefect"])
def test_a_server_that_is_killed_comes_back(services: Services, name: str) -> None:
    before = find_process(pid_file(services.folder, name))
    assert before is not None
    before.kill()

    def is_another() -> bool:
        now = find_process(pid_file(services.folder, name))
        return now is not None and now.pid != before.pid

    wait_until(is_another, 60, f"another {name}")
    with services.start("status") as process:
        process.communicate()
    wait_until(lambda: all_answer(services), 120, "every answer")


def all_answer(services: Services) -> bool:
    with services.start("status") as process:
        said, _ = process.communicate(timeout=60)
    return process.returncode == 0 and said.count(" answers ") == len(NAMES)


def test_no_secret_is_in_a_command_line_or_a_file(services: Services) -> None:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    written = {
        file: file.read_bytes()
        for file in services.folder.rglob("*")
        if file.is_file() and "postgres" not in file.relative_to(services.folder).parts
    }
    assert {"mlflow.log", "postgres.log", "prefect.log", "supervisor.log", "worker.log"} <= {f.name for f in written}
    for name, secret in services.secrets.items():
        assert not any(secret in line for line in lines), name
        assert [file for file, content in written.items() if secret.encode() in content] == [], name


def test_down_stops_everything_and_up_finds_everything_again(services: Services) -> None:
    before = services.prefect("/flow_runs/count", {})
    services.run("down")
    assert marked(services.folder) == []
    assert not set(services.ports.values()) & listening()
    with services.start("up") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
        assert services.prefect("/flow_runs/count", {}) == before > 0
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=240)
    assert process.returncode == 0
    assert marked(services.folder) == []
    assert not set(services.ports.values()) & listening()


def test_what_outlives_a_killed_supervisor_is_stopped(services: Services) -> None:
    services.run("up", "--detach", "--no-deploy")
    supervisor = find_process(pid_file(services.folder, "supervisor"))
    assert supervisor is not None
    supervisor.kill()
    assert "which has no supervisor" in services.run("down")
    assert marked(services.folder) == []
    assert not set(services.ports.values()) & listening()


def test_a_taken_port_is_named(services: Services) -> None:
    services.run("down")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of what ran there may linger
        taken.bind(("127.0.0.1", services.ports["MLFLOW"]))
        taken.listen()
        with services.start("up", "--detach") as process:
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"got a listener on COALA_MLFLOW_PORT ({services.ports['MLFLOW']})" in said
    assert marked(services.folder) == []
