"""Which PostgreSQL is taken, and how it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.services.environment import DEFAULTS, SECRETS, Environment
from flows.services.postgres import Postgres, find_postgres

ENVIRONMENT = Environment(DEFAULTS | {name: f"planted-{name}" for name in SECRETS}, Path("/state"))


def installed(folder: Path, *versions: str) -> Path:
    for version in versions:
        (folder / version / "bin").mkdir(parents=True)
        (folder / version / "bin" / "initdb").touch()
    return folder


def test_the_newest_version_is_taken_by_number(tmp_path: Path) -> None:
    found = find_postgres(ENVIRONMENT, installed(tmp_path, "9", "15", "17", "common"))
    assert found.binaries == tmp_path / "17" / "bin"
    assert (found.data, found.port) == (Path("/state/postgres"), 5433)


@pytest.mark.parametrize("versions", [(), ("13",)])
def test_absence_is_told_with_its_remedy(
    tmp_path: Path, versions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="PostgreSQL 14 or later, got none .*apt-get install .*postgresql"):
        find_postgres(ENVIRONMENT, installed(tmp_path, *versions))


def test_it_listens_on_the_loopback_only_and_its_command_names_no_secret() -> None:
    command = " ".join(Postgres(Path("/bin"), Path("/data"), 5433, None).command())
    assert command == ("/bin/postgres -D /data -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c port=5433")
