"""What registered models need: the artifacts whose keys or digests MLflow has beside their versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.registry import ARTIFACTS_TAG
from tasks.tracking import connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_OURS = "coala."
_IDENTITY = re.compile(r"[0-9a-f]{24}|[0-9a-f]{64}")


def needed_by_models(store: Path, uris: Iterable[str]) -> dict[str, str]:
    """Keys and manifest digests of the artifacts that registered versions were made from, each with its reason.

    They stand in the tags of a version, of its model and of the run that made it, so that a version which someone
    registered by hand is known, too. Versions without any are not of this project.

    Parameters
    ----------
    store : Path
        Folder of all artifacts.
    uris : iterable of str
        Every MLflow that may have such models, as `tasks.tracking.tracking_uri` gives addresses.

    Raises
    ------
    ConnectionError
        If one of them cannot be asked, as then nobody knows what is needed.
    """
    from mlflow.exceptions import MlflowException

    needed: dict[str, str] = {}
    for uri in uris:
        try:
            client = connect(store, uri)
            for version in _versions(client):
                reason = f"model {version.name}, version {version.version}, needs it"
                needed |= dict.fromkeys(_identities(client, version), reason)
        except MlflowException as error:
            reason = " ".join(str(error).split())[:200]
            raise ConnectionError(
                f"`coala gc` must ask MLflow at {uri} which models are registered, got {reason}; start it, or give "
                f"`--gone {uri}` if it is gone for good"
            ) from error
    return needed


def _versions(client: MlflowClient) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        yield from page
        if not (token := page.token):
            return


def _identities(client: MlflowClient, version: ModelVersion) -> set[str]:
    found = _in_tags(version.tags)
    if version.model_id:
        found |= _in_tags(_tags(lambda: client.get_logged_model(version.model_id).tags))
    if version.run_id:
        found |= _in_tags(_tags(lambda: client.get_run(version.run_id).data.tags))
    return found


def _in_tags(tags: Mapping[str, str]) -> set[str]:
    values = {value for name, value in tags.items() if name.startswith(_OURS)}
    if ARTIFACTS_TAG in tags:
        values |= set(json.loads(tags[ARTIFACTS_TAG]).values())
    return {value for value in values if _IDENTITY.fullmatch(value)}


def _tags(read: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """Read tags of something that may have been deleted in MLflow."""
    from mlflow.exceptions import MlflowException

    try:
        return read()
    except MlflowException as error:
        code: Any = error.error_code
        if code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
