"""The model registry: versions of heads under a name, and the aliases ``candidate`` and ``champion``."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coala_core.cvxnn.network import Head
from coala_core.heads import read_head
from coala_core.scorer import EMBEDDING, HeadEmbedding
from coala_core.storage import Artifact, Store
from tasks.logged_model import HEAD_TAG
from tasks.tracking import RUN_TAG, connect, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE, CHAMPION = "candidate", "champion"

ARTIFACTS_TAG = "coala.artifacts"
"""Tag of a version: JSON of the keys of the artifacts behind it, by stage."""

_VERSIONS_TAG = "mlflow.modelVersions"
_RUN_NAMES = (RUN_TAG, "prefect.flow_run_id")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,99}")
_RUN = re.compile(r"[A-Za-z0-9-]{1,64}")


class Registry:
    """The registry of one MLflow server or database.

    Parameters
    ----------
    store : Path
        Folder of all artifacts.
    uri : str, optional
        MLflow's address; see `tasks.tracking.tracking_uri`.

    Raises
    ------
    ValueError
        If the address holds a password or names a folder.
    """

    def __init__(self, store: Path, uri: str | None = None) -> None:
        self.uri = tracking_uri(store, uri)
        self._client = connect(store, self.uri)

    def evaluation(self, store: Store, run: str) -> Artifact:
        """Find the evaluation of a recorded run.

        Parameters
        ----------
        store : Store
            Where its artifact is.
        run : str
            MLflow's id of the parent run, its tag ``coala.run``, or the id of the Prefect flow run.

        Raises
        ------
        ValueError
            If there is no such run, it did not evaluate, or the artifact is not in the store.
        """
        parent = self._parent(run) if _RUN.fullmatch(run) else None
        of_run = f"tags.`mlflow.parentRunId` = '{parent}' and tags.`coala.stage` = 'evaluate'"
        found = self._client.search_runs(self._experiments(), of_run, max_results=1) if parent else []
        if not found:
            raise ValueError(
                f"`promote(run=...)` must name a recorded run with an evaluation, got {run!r}, which MLflow at "
                f"{self.uri} does not have; give its MLflow or Prefect id or the evaluate folder, or `coala replay`."
            )
        tags = found[0].data.tags
        return store.resolve({"stage": "evaluate", "key": tags["coala.key"], "sha256": tags[HEAD_TAG]})

    def logged_head(self, sha256: str) -> LoggedModel:
        """Find the latest model of a head, by the digest of its artifact.

        Raises
        ------
        ValueError
            If no run has recorded it.
        """
        newest = [{"field_name": "creation_timestamp", "ascending": False}]
        for experiment in self._experiments():
            found = self._client.search_logged_models(
                [experiment], f"tags.`{HEAD_TAG}` = '{sha256}'", max_results=1, order_by=newest
            )
            if found and str(found[0].status) == "READY":
                return found[0]
        raise ValueError(
            f"`promote` needs the head {sha256[:12]} as a model in MLflow at {self.uri}, got none; "
            "make it with `coala run`, or deliver what waits with `coala replay`."
        )

    def aliased(self, name: str, alias: str) -> ModelVersion | None:
        """Version that an alias points at, None where there is none."""
        found = self._client.search_registered_models(f"name = '{checked_name(name)}'")
        version = found[0].aliases.get(alias) if found else None
        return None if version is None else self._client.get_model_version(name, version)

    def register(self, name: str, model: LoggedModel) -> ModelVersion:
        """Make a head a version under a name, unless it is one, and point ``candidate`` at it."""
        if not self._client.search_registered_models(f"name = '{checked_name(name)}'"):
            self._client.create_registered_model(name)
        known = [version for version in self.versions(name) if version.tags.get(HEAD_TAG) == model.tags[HEAD_TAG]]
        version = known[0] if known else self._create_version(name, model)
        self.point(name, CANDIDATE, version.version)
        return version

    def _create_version(self, name: str, model: LoggedModel) -> ModelVersion:
        # A database resolves models:/ID through MLflow's global address, which is not set here.
        place, tags = model.artifact_location, {HEAD_TAG: model.tags[HEAD_TAG]}
        version = self._client.create_model_version(
            name, place, run_id=model.source_run_id, tags=tags, model_id=model.model_id
        )
        # As `mlflow.register_model` does, so that the model's page leads to its versions.
        listed = [*json.loads(model.tags.get(_VERSIONS_TAG, "[]")), {"name": name, "version": version.version}]
        self._client.set_logged_model_tags(model.model_id, {_VERSIONS_TAG: json.dumps(listed)})
        return version

    def point(self, name: str, alias: str, version: str | int) -> None:
        """Move an alias to a version."""
        self._client.set_registered_model_alias(name, alias, str(version))

    def describe(self, version: ModelVersion, description: str, tags: Mapping[str, str]) -> None:
        """Write on a version what was decided and why."""
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)
        self._client.update_model_version(version.name, version.version, description)

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, of one name or of all."""
        wanted = None if name is None else f"name = '{checked_name(name)}'"
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(wanted, page_token=token)
            found += page
            if not (token := page.token):
                return found

    def read_head(self, version: ModelVersion) -> tuple[Head, HeadEmbedding]:
        """Fetch a version's head and which features it takes."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with tempfile.TemporaryDirectory() as folder:
            files = get_artifact_repository(version.source, tracking_uri=self.uri, registry_uri=self.uri)
            head = Path(files.download_artifacts("artifacts/head", folder))
            embedding = HeadEmbedding.model_validate_json((head / EMBEDDING).read_text(encoding="utf-8"))
            return read_head(head), embedding

    def _experiments(self) -> list[str]:
        return [experiment.experiment_id for experiment in self._client.search_experiments()]

    def _parent(self, run: str) -> str | None:
        """MLflow's id of a run by any of its names."""
        named = [f"attributes.run_id = '{run}'", *(f"tags.`{tag}` = '{run}'" for tag in _RUN_NAMES)]
        for filter_string in named:
            if found := self._client.search_runs(self._experiments(), filter_string, max_results=1):
                return str(found[0].info.run_id)
        return None


def checked_name(name: str) -> str:
    """Return a registered model's name if it is one.

    Raises
    ------
    ValueError
        If it holds anything but letters, digits, space and ``_.-``, or is longer than 100 characters.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"`promote(name=...)` must be 1 to 100 letters, digits, spaces or _.-, got {name!r}; such as coala-head."
        )
    return name


@contextmanager
def one_sentence(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into an OSError of one sentence.

    Raises
    ------
    ConnectionError
        If MLflow does not answer or refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason: Any = " ".join(str(error).split())[:300]
        raise ConnectionError(
            f"`promote` needs MLflow at {uri}, got {reason}; start the server or correct MLFLOW_TRACKING_URI."
        ) from error
