"""What a run leaves for people: MLflow runs, Prefect artifacts, and a summary.

Everything recorded is read from the stages' artifacts, so a stage that was reused is recorded like
one that was computed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coala_core.config import RecordedConfig
from coala_core.full_disk import full_disk_named
from coala_core.housekeeping import mark_used
from coala_core.storage import PROCESS, Artifact, Store, dump_json
from tasks.cancellation import die_if_cancelled
from tasks.events import DatasetUse, flatten
from tasks.logs import run_log
from tasks.measures import compared_metrics
from tasks.notes import NOTE, stage_note
from tasks.provenance import environment_tags
from tasks.recorded_heads import TEST_PAIRS, head_model, log_verdict
from tasks.report import markdown
from tasks.summary import RunSummary, StageRecord
from tasks.tracker import Tracker

log = logging.getLogger("coala.run")

_STEPS = {"solve": "sweep", "finetune": "epoch"}
_DATASETS = {"generate": "dialogues", "triplets": "conversations", "split": "split", "embed": "features"}
_HEADS = ("head.safetensors", "head.json")
_REPORTS = ("path.json", "evaluation.json", "quality.json", "quality.md", "rejects.jsonl")


class RunRecord:
    """Collects the stages of a run as they finish, and hands them to the tracker."""

    def __init__(self, tracker: Tracker, name: str, config: RecordedConfig) -> None:
        self.tracker = tracker
        self.name = name
        self.config = config
        self.started = time.monotonic()
        self.stages: dict[str, StageRecord] = {}
        self.computing: dict[str, float] = {}
        """Seconds that computing each stage took, also where it is reused."""
        self.test_digest: str | None = None
        """Digest of the test pairs, once they were scored."""
        self._store = Store(config.store)

    def add(self, artifact: Artifact) -> Artifact:
        """Record a finished stage as a child run, and pass its artifact on."""
        mark_used(artifact.path)
        reused = not self._made_here(artifact)
        record = StageRecord(
            stage=artifact.stage,
            path=artifact.path,
            sha256=artifact.sha256,
            seconds=0.0 if reused else artifact.seconds,
            reused=reused,
            report=artifact.report,
            performance={} if reused else artifact.timing.get("performance", {}),
        )
        self.stages[artifact.stage] = record
        self.computing[artifact.stage] = artifact.seconds
        self._log(artifact, record)
        return artifact

    def _made_here(self, artifact: Artifact) -> bool:
        """Whether this run computed it: neither an equal run beside it, nor one before the clock was set back."""
        timing = artifact.timing
        return timing.get("process") == PROCESS and timing["monotonic"] >= self.started

    def _log(self, artifact: Artifact, record: StageRecord) -> None:
        # Also of a reused stage: what computing it took belongs to what it is.
        took = numbers(artifact.timing.get("performance", {})) | {"seconds": artifact.seconds}
        stage = artifact.stage
        history = artifact.path / "history.json"
        self.tracker.log_stage(
            stage,
            key=artifact.key,
            params=artifact.manifest["config"],
            report_metrics=numbers(record.report) | took,
            history=json.loads(history.read_text()) if history.exists() else (),
            step=_STEPS.get(stage, "step"),
            datasets=[(_DATASETS[stage], artifact.sha256[:36], stage)] if stage in _DATASETS else (),
            files=recorded_files(artifact),
            tags={
                "coala.sha256": artifact.sha256,
                "coala.reused": str(record.reused).lower(),
                NOTE: stage_note(artifact, reused=record.reused),
            },
            model=head_model(self._store, artifact),
            started=time.time() - record.seconds,
        )
        if stage == "evaluate":
            self.test_digest = log_verdict(self.tracker, self._store, artifact)

    def summary(self) -> RunSummary:
        """State the finished run."""
        return RunSummary(
            name=self.name,
            stages=self.stages,
            tracking_uri=self.tracker.uri,
            tracking_page=self.tracker.page,
            tracking_url=self.tracker.url,
            pending=self.tracker.pending,
        )


@contextmanager
def recorded_run(config: RecordedConfig, name: str, tags: Mapping[str, str]) -> Iterator[RunRecord]:
    """Open the parent run and close it as it ends: FINISHED, FAILED, or KILLED by a signal or a cancellation."""
    store = Store(config.store)
    store.root.mkdir(parents=True, exist_ok=True)
    tracker = Tracker.open(store.root, config.tracking, name, environment_tags() | dict(tags))
    record = RunRecord(tracker, name, config)
    try:
        with full_disk_named(store.root), run_log(store.root, tracker.run_id) as path:
            log.info("run %s (%s): its log is %s", tracker.run_id, name, path)
            tracker.log_parent(tags={"coala.run_id": tracker.run_id})
            yield record
            _log_parent(record)
    except Exception:
        tracker.close("FAILED")
        raise
    except BaseException as end:
        tracker.close("KILLED")
        die_if_cancelled(end)
        raise
    tracker.close("FINISHED")


def _log_parent(record: RunRecord) -> None:
    """Put what one compares runs by, and the files one looks for, on the parent run."""
    folder = Store(record.config.store).root / "tracking" / record.tracker.run_id
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    config.write_text(dump_json(record.config.model_dump(mode="json")), encoding="utf-8")
    record.tracker.log_parent(
        params=record.config.model_dump(mode="json"),
        metrics=compared_metrics({stage: entry.report for stage, entry in record.stages.items()}, record.computing),
        datasets=_datasets(record),
        files=[config, *_heads(record.stages)],
        tags={f"coala.{stage}": entry.sha256 for stage, entry in record.stages.items()}
        | {NOTE: markdown(record.summary()), "coala.settings": _changed_settings(record.config)},
    )


def _changed_settings(config: RecordedConfig) -> str:
    """Name the settings that are not the defaults, by which runs of one name differ."""
    changed = flatten(config.model_dump(mode="json", exclude_defaults=True))
    return ", ".join(f"{name}={value}" for name, value in changed.items() if name != "store") or "defaults"


def _datasets(record: RunRecord) -> list[DatasetUse]:
    """List the data that runs are comparable on: the triplets, and the pairs that were scored."""
    used = [("conversations", record.stages["triplets"].sha256, "train")] if "triplets" in record.stages else []
    return used + ([(TEST_PAIRS, record.test_digest, "test")] if record.test_digest else [])


def _heads(stages: Mapping[str, StageRecord]) -> list[Path]:
    """List the files of the trained head, if there is one."""
    return [stages["finetune"].path / name for name in _HEADS] if "finetune" in stages else []


def recorded_files(artifact: Artifact) -> list[Path]:
    """Files of an artifact that are worth a place in MLflow: heads, reports and pictures, no data."""
    files = [artifact.path / name for name in artifact.manifest["files"]]
    return [path for path in files if path.name in (*_HEADS, *_REPORTS) or path.suffix == ".png"]


def numbers(report: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a nested report under dotted names; text, lists and None are left out.

    >>> numbers({"a": 1, "b": {"c": 0.5, "d": "x"}, "e": [1, 2]})
    {'a': 1.0, 'b.c': 0.5}
    """
    found: dict[str, float] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found
