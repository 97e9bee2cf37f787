"""Whether a service answers."""

from __future__ import annotations

import httpx

from flows.services.environment import Environment
from flows.services.postgres import Postgres

_TIMEOUT = 3.0


def answers(name: str, environment: Environment, postgres: Postgres) -> bool:
    """Whether a service does its work: servers take requests, the worker's heartbeat reaches Prefect."""
    if name == "postgres":
        return postgres.ready()
    try:
        if name == "worker":
            return _worker_is_online(environment)
        url = {"prefect": f"{environment.prefect_url}/api/health", "mlflow": f"{environment.mlflow_url}/health"}[name]
        return httpx.get(url, timeout=_TIMEOUT).is_success
    except httpx.HTTPError:
        return False


def _worker_is_online(environment: Environment) -> bool:
    url = f"{environment.prefect_url}/api/work_pools/{environment.values['COALA_POOL']}/workers/filter"
    answer = httpx.post(url, json={}, auth=environment.prefect_login(), timeout=_TIMEOUT)
    return answer.is_success and any(worker["status"] == "ONLINE" for worker in answer.json())
