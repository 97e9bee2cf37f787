"""PostgreSQL as an ordinary process: its binaries, its data folder, its roles and databases."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.services.environment import ROOT, Environment, inherited

_DEBIAN = Path("/usr/lib/postgresql")
_OLDEST = 14  # Prefect's, and that of psql's \getenv
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Postgres:
    """Binaries and data folder of one server.

    Attributes
    ----------
    user
        Who runs it, where that is not this user: PostgreSQL refuses root.
    """

    binaries: Path
    data: Path
    port: int
    user: str | None

    def command(self) -> tuple[str, ...]:
        """Give the command of the server: in the foreground, on the loopback only, without a socket in /tmp."""
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={self.port}")
        options = tuple(word for setting in settings for word in ("-c", setting))
        return (str(self.binaries / "postgres"), "-D", str(self.data), *options)

    def ready(self) -> bool:
        """Whether the server takes connections."""
        command = [str(self.binaries / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


def find_postgres(environment: Environment, installed: Path = _DEBIAN) -> Postgres:
    """Find the newest PostgreSQL of Debian, or the one on the PATH.

    Raises
    ------
    FileNotFoundError
        If there is none of version 14 or later.
    """
    versions = [path for path in installed.glob("*/bin") if path.parent.name.isdigit()]
    found = [
        path for path in sorted(versions, key=_version) if _version(path) >= _OLDEST and (path / "initdb").exists()
    ]
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise FileNotFoundError(
            f"`coala services up` needs PostgreSQL {_OLDEST} or later, got none in {installed} or on the PATH; "
            "run `apt-get install --no-install-recommends postgresql`."
        )
    binaries = found[-1] if found else Path(str(on_path)).resolve().parent
    user = "postgres" if os.geteuid() == 0 else None
    return Postgres(binaries, environment.folder / "postgres", environment.ports()["postgres"], user)


def prepare(postgres: Postgres, environment: Environment, log: Path) -> None:
    """Make the data folder where there is none, then roles and databases; their passwords are set each time.

    Raises
    ------
    ValueError
        If PostgreSQL's user cannot reach the folder, or PostgreSQL cannot be prepared.
    """
    with log.open("ab") as output:
        try:
            if not postgres.data.exists():
                _make_data(postgres, environment, output)
            with _running(postgres, output):
                _make_databases(postgres, environment, output)
        except (subprocess.SubprocessError, TimeoutError) as error:
            raise ValueError(
                f"`coala services up` needs PostgreSQL in {postgres.data}, got {_plain(error)}; see {log}."
            ) from None


def _version(path: Path) -> int:
    return int(path.parent.name)


def _as(user: str | None) -> dict[str, Any]:
    """Arguments of `subprocess` that run a command as a user."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}


def _make_data(postgres: Postgres, environment: Environment, output: Any) -> None:
    """Run initdb beside the final folder, which appears whole or not at all."""
    partial = postgres.data.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=partial.parent) as password:
        password.write(environment.values["COALA_POSTGRES_PASSWORD"])
        password.flush()
        if postgres.user is not None:
            for path in (partial, password.name):
                shutil.chown(path, postgres.user)
            _check_reach(postgres.user, partial)
        command = [str(postgres.binaries / "initdb"), "--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"]
        options = [f"--pwfile={password.name}", "--locale=C.UTF-8", f"--pgdata={partial}"]
        subprocess.run([*command, *options], check=True, stdout=output, stderr=output, **_as(postgres.user))
    partial.rename(postgres.data)


def _check_reach(user: str, folder: Path) -> None:
    if subprocess.run(["test", "-w", folder], check=False, **_as(user)).returncode:
        raise ValueError(
            f"`coala services up` as root runs PostgreSQL as the user {user}, who must reach its folder, "
            f"got no way to {folder}; choose another --store, or let others pass the folders above it (chmod o+x)."
        )


@contextmanager
def _running(postgres: Postgres, output: Any) -> Iterator[None]:
    """Run the server for a short while, without a supervisor."""
    process = subprocess.Popen(
        postgres.command(), stdout=output, stderr=output, start_new_session=True, **_as(postgres.user)
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not postgres.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("a server that does not start")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=_START_SECONDS)


def _make_databases(postgres: Postgres, environment: Environment, output: Any) -> None:
    variables: Mapping[str, str] = inherited(os.environ) | environment.postgres_setup()
    path = f"{postgres.binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    script = ["sh", str(ROOT / "docker" / "postgres-init.sh")]
    subprocess.run(script, check=True, stdout=output, stderr=output, env={**variables, "PATH": path})


def _plain(error: Exception) -> str:
    """Say what failed without the command's words."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode} of {Path(error.cmd[-1] if error.cmd[0] == 'sh' else error.cmd[0]).name}"
    return str(error)
