"""Become one service: `python -m flows.services.child NAME ENV_FILE FOLDER`, as the supervisor starts it.

The supervisor's configuration thus holds no secret, and each service gets its own secrets only.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flows.services.environment import inherited, read_environment
from flows.services.health import answers
from flows.services.postgres import find_postgres
from flows.services.processes import kill, marked, marks, write_identity
from flows.services.programs import pid_file, programs

_LEAVE_CHILDREN = ("prefect", "mlflow")  # servers whose children, left alone, keep the port


def main(arguments: Sequence[str]) -> None:
    """Wait for what the service needs, then replace this process by it."""
    name, file, folder = arguments
    environment = read_environment(Path(file), Path(folder))
    postgres = find_postgres(environment)
    program = programs(environment, postgres)[name]
    write_identity(pid_file(environment.folder, name))
    if name in _LEAVE_CHILDREN:
        kill(marked(environment.folder, name))
    while not all(answers(need, environment, postgres) for need in program.needs):
        time.sleep(0.5)
    variables = {**inherited(os.environ), **program.environment, **marks(environment.folder, name)}
    _become(program.user)
    sys.stdout.flush()
    os.execve(program.command[0], program.command, variables)


def _become(user: str | None) -> None:
    """Give up root for a user's rights."""
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chdir("/")
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


if __name__ == "__main__":
    main(sys.argv[1:])
