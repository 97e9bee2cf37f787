"""Deployments of prefect.yaml on a server: those that it lacks, so that schedules changed in the UI stay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.services.environment import ROOT

_TIMEOUT = 30.0
_POOL_VARIABLE = "coala_work_pool"  # Prefect's variable that prefect.yaml names


def deploy(client: Mapping[str, str], again: bool = False, file: Path = ROOT / "prefect.yaml") -> list[str]:
    """Make the work pool, the deployments that the server lacks, and what watches over their runs.

    Parameters
    ----------
    client
        Variables of Prefect's client: PREFECT_API_URL, PREFECT_API_AUTH_STRING and COALA_POOL.
    again
        Deploy those too that the server has; their schedules become those of the file.

    Returns
    -------
    list of str
        Names of the deployments made.

    Raises
    ------
    ValueError
        If the server refuses, or Prefect cannot deploy.
    """
    names = [str(entry["name"]) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]]
    pool = client.get("COALA_POOL", "coala")
    pools = _named(client, "work_pools", [pool])
    wanted = names if again else sorted(set(names) - _named(client, "deployments", names), key=names.index)
    if pool not in pools:
        _prefect(client, file, "work-pool", "create", pool, "--type", "process")
    if not _named(client, "variables", [_POOL_VARIABLE]):
        _answer(client, "variables/", {"name": _POOL_VARIABLE, "value": pool})
    if wanted:
        _prefect(client, file, "--no-prompt", "deploy", *(word for name in wanted for word in ("--name", name)))
    _run("flows.zombies", client, file.parent)
    return wanted


def _named(client: Mapping[str, str], kind: str, names: list[str]) -> set[str]:
    """Those of the names that the server knows."""
    found = _answer(client, f"{kind}/filter", {kind: {"name": {"any_": names}}})
    return {entry["name"] for entry in found}


def _answer(client: Mapping[str, str], path: str, content: object) -> Any:
    user, _, password = client.get("PREFECT_API_AUTH_STRING", "").partition(":")
    answer = httpx.post(
        f"{client['PREFECT_API_URL'].rstrip('/')}/{path}",
        json=content,
        auth=(user, password) if user else None,
        timeout=_TIMEOUT,
    )
    if not answer.is_success:
        raise ValueError(
            f"`coala services deploy` needs Prefect's answer at {client['PREFECT_API_URL']}, "
            f"got {answer.status_code}; see `coala doctor`."
        )
    return answer.json()


def _prefect(client: Mapping[str, str], file: Path, *arguments: str) -> None:
    _run("prefect", client, file.parent, *arguments)


def _run(module: str, client: Mapping[str, str], folder: Path, *arguments: str) -> None:
    """Run a module of this environment as a client of the server."""
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, **client},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ValueError(
            f"`{module} {' '.join(arguments)}` must succeed, got exit status {result.returncode}: "
            f"{result.stdout[-2000:]}; correct prefect.yaml, then run `coala services deploy`."
        )
