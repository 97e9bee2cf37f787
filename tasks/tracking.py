"""Deliver journals of runs to MLflow, at once or another day.

MLflow drops an exact duplicate of a metric point, keeps equal parameters, and overwrites tags,
files and the closing status; a run is found again by its tag ``coala.run``, a model by its digest. So
each event may be delivered again, and no crash doubles anything.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tasks.events import DatasetUse, close_event
from tasks.journal import Event, Journal, Received

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_TAG = "coala.run"
EXPERIMENT_TAGS = {
    # Without it MLflow's pages open in their mode for chat traces.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "Preference heads by COALA. A run is a pipeline, its children are the stages. Compare runs by the metrics "
        "`test/...` (held-out pairs), `lead/...` (ahead of a baseline) and `solve/gap` (certificate of Phase I)."
    ),
}

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")


def tracking_uri(store: Path, uri: str | None = None) -> str:
    """Where runs go: `uri`, else ``MLFLOW_TRACKING_URI``, else a SQLite database in the store.

    Raises
    ------
    ValueError
        If the address holds a password, or names a folder, which MLflow no longer supports.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or store_uri(store)
    parts = urlsplit(address)
    token = parts.username is not None and parts.scheme in ("http", "https")
    if parts.password is not None or token or "password" in parse_qs(parts.query):
        raise ValueError(
            f"`MLFLOW_TRACKING_URI` must not hold a password, got one for host {parts.hostname!r}; "
            "put credentials into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if parts.scheme in ("", "file"):
        raise ValueError(
            f"`MLFLOW_TRACKING_URI` must name a server or a database, got the folder {address!r}; "
            "use http://host:port or sqlite:////absolute/path.db, or leave it unset."
        )
    return address


def store_uri(store: Path) -> str:
    """Address of the database that comes with the store."""
    return f"sqlite:///{store.resolve() / 'mlflow' / 'mlflow.db'}"


def connect(store: Path, uri: str) -> MlflowClient:
    """Return a client of the server or database, for runs, models and the registry alike.

    Parameters
    ----------
    store : Path
        Where the database lies, if it is that of the store.
    uri : str
        As `tracking_uri` gives it.
    """
    # A dead server must cost seconds, not minutes; the journal is what retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.tracking import MlflowClient

    if uri == store_uri(store):
        (store.resolve() / "mlflow").mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


class Destination:
    """One MLflow server or database, as a place to deliver journals to."""

    def __init__(self, store: Path, uri: str) -> None:
        self.store, self.uri = store.resolve(), uri
        # The store's own database is the same destination wherever the store is moved.
        self.key = "store" if uri == store_uri(store) else uri
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    def deliver(self, journal: Journal) -> str | None:
        """Send what is pending; None when all arrived, else one sentence why delivery stopped."""
        started_over = False
        while (received := journal.received(self.key)).position < len(journal.events):
            event, details = journal.events[received.position], {}
            try:
                details = self._send(event, received)
            except Exception as error:  # noqa: BLE001 - whatever ails the tracking server must not stop the run
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                code = getattr(error, "error_code", None)
                if code == "RESOURCE_DOES_NOT_EXIST" and received.remotes and not started_over:
                    # The server lost its database; every event may be sent again.
                    journal.acknowledge(self.key, 0)
                    self._experiments.clear()
                    started_over = True
                    continue
                if event["event"] == "open" or not (code in REFUSALS or isinstance(error, FileNotFoundError)):
                    return reason
                details = {"refused": f"MLflow refused a {event['event']!r} event of run {event['run']}: {reason}"}
            journal.acknowledge(self.key, received.position + 1, **details)
        return None

    def page(self, received: Received, run: str, experiment: str) -> str | None:
        """Path of a run's page below MLflow's address, None while the run has not arrived."""
        remote, number = received.remotes.get(run), self._experiments.get(experiment)
        if remote is None or number is None:
            return None
        # Without the last part MLflow's pages open in their mode for chat traces.
        return f"/#/experiments/{number}/runs/{remote}?workflowType=machine_learning"

    def _connected(self) -> MlflowClient:
        """Make the client at first use, because importing mlflow takes seconds."""
        if self._client is None:
            self._client = connect(self.store, self.uri)
        return self._client

    def _send(self, event: Event, received: Received) -> dict[str, str]:
        """Deliver one event; returns what to note beside its acknowledgement."""
        client, run = self._connected(), event["run"]
        from mlflow.entities import Metric, Param, RunTag

        if event["event"] == "open":
            return {"run": run, "remote": self._open(event, received)}
        remote = received.remotes[run]
        if event["event"] in ("model", "scores"):
            return self._send_model(event, remote, received)
        match event["event"]:
            case "log":
                metrics = [Metric(key, float(value), when, step) for key, value, when, step in event["metrics"]]
                params, tags = [Param(*pair) for pair in event["params"]], [RunTag(*pair) for pair in event["tags"]]
                client.log_batch(remote, metrics=metrics, params=params, tags=tags)
            case "inputs":
                client.log_inputs(remote, datasets=_dataset_inputs(event["datasets"]))
            case "document":
                client.log_text(remote, event["text"], event["artifact"])
            case "file":
                client.log_artifact(remote, str(self.store / event["path"]))
            case "close":
                client.set_terminated(remote, event["status"], end_time=event["time"])
        return {}

    def _send_model(self, event: Event, remote: str, received: Received) -> dict[str, str]:
        """Deliver a run's model, which is noted under the run's name and "model", or what is to be said of it."""
        from tasks.logged_model import deliver_model, deliver_scores  # it knows heads, which take seconds to import

        client, noted = self._connected(), f"{event['run']}/model"
        if event["event"] == "model":
            parent = received.remotes[event["parent"]]
            return {"run": noted, "remote": deliver_model(client, remote, parent, event, self.store)}
        if noted not in received.remotes:  # the model itself was refused
            raise FileNotFoundError(f"run {event['run']} has no model in MLflow")
        deliver_scores(client, remote, received.remotes[noted], event)
        return {}

    def _open(self, event: Event, received: Received) -> str:
        """Find the remote run of a local one by its tag, or create it."""
        client, experiment = self._connected(), self._experiment(event["experiment"])
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{event['run']}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {RUN_TAG: event["run"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = received.remotes[event["parent"]]
        run = client.create_run(experiment, start_time=event["time"], tags=tags, run_name=event["name"])
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        """Experiment id of a name; a database's artifacts go under the store, never the working directory."""
        if name not in self._experiments:
            client = self._connected()
            known = client.get_experiment_by_name(name)
            folder = None if self.uri.startswith("http") else (self.store / "mlflow" / "artifacts").as_uri()
            made = known.experiment_id if known else client.create_experiment(name, folder, EXPERIMENT_TAGS)
            self._experiments[name] = str(made)
        return self._experiments[name]


def _dataset_inputs(datasets: Sequence[DatasetUse]) -> list[Any]:
    """Our digests as MLflow data sets; MLflow's digest column holds 36 characters, so the source has it whole."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(name, digest[:36], source_type="coala", source=json.dumps({"digest": digest})),
            tags=[InputTag("mlflow.data.context", context)],
        )
        for name, digest, context in datasets
    ]


@dataclass(frozen=True)
class ReplayReport:
    """What `replay` did."""

    delivered: tuple[str, ...]
    """Runs that were pending and have now arrived whole."""
    pending: dict[str, str]
    """Runs that have not, each with the reason."""
    refused: tuple[str, ...]
    """One sentence for each event that MLflow refused for good."""


def replay(store: Path, uri: str | None = None) -> ReplayReport:
    """Deliver all that is pending; safe to repeat and to interrupt anywhere.

    A run whose process died is closed as KILLED at the time of its last record. A run that some
    destination has whole is left alone.

    Parameters
    ----------
    store : Path
    uri : str, optional
        MLflow address that takes every pending run whole; each run's own address if absent.

    Raises
    ------
    ValueError
        If the address holds a password or names a folder.
    """
    destinations: dict[str, Destination] = {}
    failed: dict[str, str] = {}
    delivered, pending, refused = [], {}, []
    for path in sorted((store / "tracking").glob("*.jsonl")):
        try:
            journal = Journal.load(path)
        except BlockingIOError:
            pending[path.stem] = "the process that writes it is still running"
            continue
        except ValueError as error:
            pending[path.stem] = str(error)
            continue
        with contextlib.closing(journal):
            if not journal.events or journal.is_complete():
                continue
            _close_abandoned(journal)
            address = tracking_uri(store, uri or journal.events[0]["uri"] or store_uri(store))
            destination = destinations.setdefault(address, Destination(store, address))
            reason = failed.get(address) or destination.deliver(journal)
            refused += journal.received(destination.key).refused
            if reason is None:
                delivered.append(path.stem)
            else:
                pending[path.stem] = failed[address] = reason
    return ReplayReport(tuple(delivered), pending, tuple(refused))


def _close_abandoned(journal: Journal) -> None:
    """Close what a dead process left open; the journal's last write is its last sign of life."""
    if open_runs := journal.open_runs():
        journal.append([close_event(run, "KILLED", journal.last_write) for run in open_runs])
