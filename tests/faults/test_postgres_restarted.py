"""PostgreSQL below Prefect is restarted in the middle of a run: the run ends, and the server goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.services.postgres import Postgres, find_postgres, prepare
from tests.faults.conftest import Undisturbed, digests_of, slow_config, torn
from tests.faults.test_cancelled import parents
from tests.faults.world import World, wait_for, world
from tests.lessons import quick_config
from tests.services.running import Services

pytestmark = pytest.mark.slow


class Database:
    """A PostgreSQL server with Prefect's database that can be stopped and started again."""

    def __init__(self, postgres: Postgres, log: Path) -> None:
        self.postgres, self.log = postgres, log
        self.start()

    def start(self) -> None:
        user = self.postgres.user
        rights = {} if user is None else {"user": user, "group": user, "extra_groups": [], "cwd": "/"}
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                self.postgres.command(), stdout=output, stderr=output, start_new_session=True, **rights
            )
        wait_for(self.postgres.ready, "PostgreSQL takes connections")

    def stop(self) -> None:
        """Fast shutdown: every client is thrown out."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@pytest.fixture
def database() -> Iterator[tuple[Database, dict[str, str]]]:
    """PostgreSQL and the variables by which Prefect's server finds it."""
    folder = Path(tempfile.mkdtemp(prefix="coala-postgres-"))
    folder.chmod(0o755)  # PostgreSQL refuses root, and its own user must get here
    try:
        services = Services(folder)
        services.folder.mkdir(mode=0o755)
        environment = services.environment
        try:
            postgres = find_postgres(environment)
        except FileNotFoundError as error:
            pytest.skip(str(error))
        prepare(postgres, environment, folder / "postgres.log")
        running = Database(postgres, folder / "postgres.log")
        variables = environment.prefect_server()
        try:
            yield running, {name: value for name, value in variables.items() if "_DATABASE_" in name}
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_run_outlives_the_database_of_its_server(
    database: tuple[Database, dict[str, str]],
    undisturbed: Undisturbed,
    model: Path,
    make_store: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    postgres, variables = database
    store, log = make_store("store"), tmp_path / "worker.log"
    with world(tmp_path / "prefect", **variables) as prefect, prefect.working(log):
        number = prefect.submit(slow_config(store, undisturbed.conversations, model))
        wait_for(lambda: list(store.glob("embed/*.partial")), "the run embeds", pause=0.01)
        postgres.stop()
        assert not postgres.postgres.ready()
        postgres.start()
        assert prefect.ended(number).type == "COMPLETED", log.read_text()
        assert told(prefect, number) == set(undisturbed.digests)
        quick = quick_config(make_store("next"), undisturbed.conversations, model)
        then = prefect.submit(quick.model_dump(mode="json", exclude_unset=True))
        assert prefect.ended(then).type == "COMPLETED", log.read_text() + prefect.log()
    assert [run.info.status for run in parents(store)] == ["FINISHED"]
    assert digests_of(store) == undisturbed.digests
    assert torn(store) == []


def told(prefect: World, number: str) -> set[str]:
    """Stages whose tasks the server knows to have ended well."""
    tasks = prefect.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [number]}}})
    return {task["name"].rpartition("-")[0] for task in tasks if task["state"]["type"] == "COMPLETED"}
