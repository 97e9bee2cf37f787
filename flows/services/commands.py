"""`coala services`: PostgreSQL, Prefect, MLflow and a worker as processes, where there is no container engine."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import App, Parameter
from filelock import FileLock, Timeout

from coala_core.config import PipelineConfig
from flows.services.deploy import deploy as deploy_to
from flows.services.environment import ENV_FILE, Environment, inherited, read_environment
from flows.services.health import answers
from flows.services.postgres import Postgres, find_postgres, prepare
from flows.services.processes import find_process
from flows.services.programs import NAMES, log_file, pid_file
from flows.services.supervisor import start, stop_all, supervisor_of, taken_ports, wait_healthy
from flows.settings import StoreFolder

services = App(name="services", help="Run PostgreSQL, Prefect, MLflow and a worker as processes of this machine.")

EnvFile = Annotated[Path, Parameter(help="Secrets and ports, as docker/make-env writes them.")]


@services.command
def up(
    *, store: StoreFolder = None, env_file: EnvFile = ENV_FILE, detach: bool = False, no_deploy: bool = False
) -> None:
    """Start all services and wait until they answer; Ctrl-C stops them.

    Parameters
    ----------
    detach
        Return as soon as all answer, and leave them running.
    no_deploy
        Do not make the deployments of prefect.yaml that the server lacks.
    """
    _check_extra()
    environment = read_environment(env_file, _folder(store))
    postgres = find_postgres(environment)
    _make_folders(environment.folder)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with FileLock(environment.folder / "lock", timeout=0):
            _start(environment, postgres, env_file, no_deploy)
    except Timeout:
        raise ValueError("`coala services up` must run once at a time, got another one at work; wait for it.") from None
    _show_addresses(environment)
    if not detach:
        _wait_for_interrupt(environment.folder)


@services.command
def down(*, store: StoreFolder = None) -> None:
    """Stop all services, the worker first; what they have stored stays."""
    folder = _folder(store)
    _say("stopped" if stop_all(folder, _say) else f"nothing runs for {folder}")


@services.command
def status(*, store: StoreFolder = None, env_file: EnvFile = ENV_FILE) -> int:
    """Say of each service whether it answers, its process and its log; exit 1 unless all answer."""
    environment = read_environment(env_file, _folder(store))
    postgres = find_postgres(environment)
    healthy = {name: answers(name, environment, postgres) for name in NAMES}
    for name, well in healthy.items():
        process = find_process(pid_file(environment.folder, name))
        state = ("answers" if well else "does not answer") if process else "does not run"
        number = str(process.pid) if process else "-"
        sys.stdout.write(f"{name:10}{state:17}{number:>8}  {log_file(environment.folder, name)}\n")
    return 0 if all(healthy.values()) else 1


@services.command
def deploy(*, store: StoreFolder = None, env_file: EnvFile = ENV_FILE, again: bool = False) -> None:
    """Make the deployments of prefect.yaml that Prefect's server lacks.

    Parameters
    ----------
    again
        Deploy all; schedules become those of the file, also where they were changed in the UI.
    """
    client = (
        dict(os.environ)
        if "PREFECT_API_URL" in os.environ
        else inherited(os.environ) | read_environment(env_file, _folder(store)).client()
    )
    _say(f"deployed: {', '.join(deploy_to(client, again)) or 'nothing new'}")


@services.command
def client(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    store: StoreFolder = None,
    env_file: EnvFile = ENV_FILE,
) -> None:
    """Run a command that speaks to the services, such as `coala services client -- prefect deployment ls`.

    Parameters
    ----------
    command
        The command and its arguments.
    """
    if not command:
        raise ValueError("`coala services client` needs a command, got none; for example `-- prefect deployment ls`.")
    variables = inherited(os.environ) | read_environment(env_file, _folder(store)).client()
    here = str(Path(sys.executable).parent)
    variables["PATH"] = f"{here}{os.pathsep}{variables.get('PATH', os.defpath)}"
    os.environ["PATH"] = variables["PATH"]  # where execvpe looks
    os.execvpe(command[0], command, variables)


def _folder(store: str | None) -> Path:
    return Path(store or PipelineConfig().store).absolute() / "services"


def _make_folders(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # PostgreSQL's user passes
    for below in ("logs", "pids"):
        (folder / below).mkdir(mode=0o700, exist_ok=True)


def _check_extra() -> None:
    missing = [name for name in ("supervisor", "psycopg", "flask_wtf") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"`coala services up` needs the extra `service`, got no {', '.join(missing)}; "
            "run `pip install -c constraints.txt -e '.[service]'`."
        )


def _start(environment: Environment, postgres: Postgres, file: Path, no_deploy: bool) -> None:
    """Start what does not run yet; after a failure, what was started here is stopped."""
    folder = environment.folder
    ran = supervisor_of(folder) is not None
    if not ran:
        stop_all(folder, _say)
        taken = ", ".join(taken_ports(environment))
        if taken:
            raise ValueError(
                f"`coala services up` needs its ports free, got a listener on {taken}; stop it, or change {file}."
            )
        _say("preparing PostgreSQL")
        prepare(postgres, environment, log_file(folder, "postgres"))
    try:
        if not ran:
            start(environment, postgres, file)
        wait_healthy(environment, postgres, _say)
        if not no_deploy:
            _say(f"deployed: {', '.join(deploy_to(environment.client())) or 'nothing new'}")
    except BaseException:
        if not ran:
            stop_all(folder, _say)
        raise


def _wait_for_interrupt(folder: Path) -> None:
    _say("Ctrl-C stops all services")
    try:
        while supervisor_of(folder) is not None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        stop_all(folder, _say)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_addresses(environment: Environment) -> None:
    user = environment.values["COALA_USER"]
    _say(f"Prefect {environment.prefect_url}, login {user}:COALA_PREFECT_PASSWORD")
    _say(f"MLflow {environment.mlflow_url}, user {user}, password COALA_MLFLOW_PASSWORD")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
