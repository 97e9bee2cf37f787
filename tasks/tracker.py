"""Record a pipeline run, and never let the tracking server stop it.

What happens is first written to the run's journal under ``<store>/tracking`` and then delivered.
A server that does not answer leaves events pending: the pipeline goes on, delivery is tried again
at later events, and `tasks.tracking.replay` finishes the work another day.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from coala_core.config import TrackingConfig
from tasks.events import (
    DatasetUse,
    HeadModel,
    close_event,
    file_events,
    input_events,
    log_events,
    model_event,
    open_event,
    score_event,
    stage_points,
)
from tasks.journal import Event, Journal, Received
from tasks.tracking import Destination, tracking_uri

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in MLflow's words."""

RETRY_SECONDS = 10.0

log = logging.getLogger("coala.tracking")


class Tracker:
    """The recorder of one pipeline run: a parent run with one child per stage.

    Nothing here raises because of MLflow. What could not be delivered is in `pending`, and
    `warnings` holds one sentence for each thing that went wrong, also sent to the logger
    "coala.tracking". Methods may be called from several threads.
    """

    def __init__(self, journal: Journal, destination: Destination, experiment: str) -> None:
        self.run_id = journal.path.stem
        self.warnings: list[str] = []
        self._journal, self._destination, self._experiment = journal, destination, experiment
        self._guard = threading.RLock()
        self._children = 0
        self._models: dict[str, str] = {}
        self._retry_at = 0.0
        self._waiting = False

    @classmethod
    def open(cls, store: Path, config: TrackingConfig, name: str, tags: Mapping[str, str]) -> Self:
        """Begin the parent run.

        Parameters
        ----------
        store : Path
            Folder of all artifacts; the journal lies in its ``tracking``.
        config : TrackingConfig
            Experiment, and a run name that goes before `name` if set.
        name : str
        tags : mapping of str to str
            For instance `environment_tags()`.

        Raises
        ------
        ValueError
            If MLFLOW_TRACKING_URI holds a password or names a folder.
        """
        destination = Destination(store, tracking_uri(store))
        run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        tracker = cls(Journal.create(store / "tracking", run), destination, config.experiment)
        opened = open_event(run, None, config.run_name or name, config.experiment, _now())
        opened["uri"] = None if destination.key == "store" else destination.uri
        tracker._record([opened, *log_events(run, {}, tags, [])])
        return tracker

    @property
    def uri(self) -> str:
        """Address of the MLflow store or server."""
        return self._destination.uri

    @property
    def pending(self) -> int:
        """Number of events that MLflow does not have yet."""
        return len(self._journal.events) - self._received.position

    @property
    def remote_id(self) -> str | None:
        """MLflow's id of the parent run, None while it has not arrived."""
        return self._received.remotes.get(self.run_id)

    @property
    def page(self) -> str | None:
        """Path of the run's page below MLflow's address, None while the run has not arrived."""
        return self._destination.page(self._received, self.run_id, self._experiment)

    @property
    def url(self) -> str | None:
        """Page of the run, None while it has not arrived or where there is no server."""
        return self.uri.rstrip("/") + self.page if self.page and self.uri.startswith("http") else None

    def log_stage(
        self,
        stage: str,
        *,
        key: str,
        params: Mapping[str, Any],
        report_metrics: Mapping[str, float],
        history: Sequence[Mapping[str, Any]] = (),
        step: str = "step",
        datasets: Sequence[DatasetUse] = (),
        files: Sequence[Path] = (),
        tags: Mapping[str, str] | None = None,
        model: HeadModel | None = None,
        started: float | None = None,
        status: Status = "FINISHED",
    ) -> None:
        """Record a stage that has ended, as a child run.

        Parameters
        ----------
        stage : str
            Name of the child run.
        key : str
            Key of the stage's artifact, kept as the tag ``coala.key``.
        params : mapping
            The stage's configuration, nested as it is.
        report_metrics : mapping of str to float
            Recorded at step 0; text and None are left out.
        history : sequence of rows
            Curves; a name that the report has too is there called ``final/<name>``.
        step : str
            The history's column of whole numbers that counts steps, such as "sweep".
        datasets : sequence of (name, digest, use)
        files : sequence of Path
            Copied into the child run's artifacts.
        tags : mapping of str to str, optional
        model : HeadModel, optional
            The head that the stage leaves.
        started : float, optional
            When the stage began, in seconds since 1970; now, if absent.
        status : {"FINISHED", "FAILED", "KILLED"}

        Raises
        ------
        ValueError
            If a history row lacks its step, two files share a name, or the tracker is closed.
        """
        ended = _now()
        with self._guard:
            child = f"{self.run_id}-{self._children + 1}"
            all_tags = {"coala.stage": stage, "coala.key": key} | dict(tags or {})
            began = ended if started is None else round(started * 1000)
            events = [open_event(child, self.run_id, stage, self._experiment, began)]
            events += log_events(child, params, all_tags, stage_points(report_metrics, history, step, ended))
            events += input_events(child, datasets) + file_events(child, files, self._destination.store)
            if model is not None:
                events.append(model_event(child, self.run_id, model, self._destination.store))
                self._models[stage] = child
            self._record([*events, close_event(child, status, ended)])
            self._children += 1

    def log_scores(self, stage: str, metrics: Mapping[str, float], dataset: tuple[str, str]) -> None:
        """Record how the head of an earlier stage did on a data set, beside the head and beside its run.

        Parameters
        ----------
        stage : str
            Stage that `log_stage` was given a model for.
        metrics : mapping of str to float
        dataset : (name, digest)

        Raises
        ------
        ValueError
            If that stage left no head, or the tracker is closed.
        """
        with self._guard:
            if stage not in self._models:
                raise ValueError(
                    f"`Tracker.log_scores(stage=...)` must name a stage that left a head, got {stage!r} of "
                    f"{sorted(self._models)}; give `log_stage` its model first."
                )
            self._record([score_event(self._models[stage], metrics, dataset, _now())])

    def log_parent(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        files: Sequence[Path] = (),
        tags: Mapping[str, str] | None = None,
        datasets: Sequence[DatasetUse] = (),
    ) -> None:
        """Record something of the whole run; arguments as for `log_stage`.

        Raises
        ------
        ValueError
            If two files share a name, or the tracker is closed.
        """
        points = stage_points(metrics or {}, (), "step", _now())
        events = log_events(self.run_id, params or {}, tags or {}, points) + input_events(self.run_id, datasets)
        self._record(events + file_events(self.run_id, files, self._destination.store))

    def close(self, status: Status = "FINISHED") -> None:
        """End the parent run and try once more to deliver what is pending; a second call does nothing."""
        with self._guard:
            if self.run_id in self._journal.open_runs():
                self._retry_at = 0.0
                self._record([close_event(self.run_id, status, _now())])
                self._journal.close()

    @property
    def _received(self) -> Received:
        """Look up what the destination has."""
        return self._journal.received(self._destination.key)

    def _record(self, events: Sequence[Event]) -> None:
        """Write events down, then deliver unless the server failed a moment ago."""
        with self._guard:
            if self.run_id not in self._journal.open_runs() and self._journal.events:
                raise ValueError(f"Nothing can be recorded after `Tracker.close`, got run {self.run_id}; close last.")
            self._journal.append(events)
            began = time.monotonic()
            if began < self._retry_at:
                return
            reason = self._destination.deliver(self._journal)
            for refusal in self._received.refused:
                if refusal not in self.warnings:
                    self._warn(refusal)
            if reason is not None:
                # A server that lets each attempt time out takes at most a tenth of the run's time.
                now = time.monotonic()
                self._retry_at = now + max(RETRY_SECONDS, 10 * (now - began))
                self._warn_unreachable(reason)

    def _warn_unreachable(self, reason: str) -> None:
        """Say once that records wait."""
        if not self._waiting:
            self._waiting = True
            self._warn(
                f"MLflow at {self._destination.uri} took no records ({reason}); the run goes on, and its records "
                f"wait in {self._journal.path} until `replay` delivers them."
            )

    def _warn(self, sentence: str) -> None:
        """Collect a warning and log it."""
        self.warnings.append(sentence)
        log.warning(sentence)


def _now() -> int:
    """Read the clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
