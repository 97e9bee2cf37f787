"""What a run logs, as journal events that each fit one MLflow request; no server is known here."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from tasks.journal import Event

Point = list[Any]
"""A metric's [name, value, time in milliseconds, step]; the value is "nan" where it is NaN."""

DatasetUse = tuple[str, str, str]
"""Name of a data set, its digest, and what it was used for, such as "train"."""


@dataclass(frozen=True)
class HeadModel:
    """A trained head that a stage leaves, as MLflow is to know it."""

    name: str
    """Name of the model, such as "head-phase-2"."""
    folder: Path
    """Artifact with ``head.safetensors`` and ``head.json``."""
    sha256: str
    """Digest of the artifact; heads of equal digest are one model."""
    embedding: Mapping[str, Any]
    """The features that it takes, as in `coala_core.scorer.HeadEmbedding`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, nested as in the configuration."""
    tags: Mapping[str, str] = field(default_factory=dict)


# Limits of MLflow's log-batch request; its 1,000,000 bytes leave room for the envelope.
BATCH_METRICS, BATCH_PARAMS, BATCH_TAGS, BATCH_BYTES = 800, 100, 100, 800_000
PARAM_CHARACTERS, TAG_CHARACTERS, NAME_CHARACTERS = 6000, 8000, 250


def open_event(run: str, parent: str | None, name: str, experiment: str, time: int) -> Event:
    """Begin a run; times are in milliseconds since 1970."""
    return {"event": "open", "run": run, "parent": parent, "name": name, "experiment": experiment, "time": time}


def close_event(run: str, status: str, time: int) -> Event:
    """End a run."""
    return {"event": "close", "run": run, "status": status, "time": time}


def log_events(run: str, params: Mapping[str, Any], tags: Mapping[str, str], points: Sequence[Point]) -> list[Event]:
    """Log parameters, tags and metric points; what is too long for MLflow stays whole in an artifact.

    Parameters
    ----------
    run : str
    params : mapping
        Nested as in the configuration; also kept as the artifact ``config.json``.
    tags : mapping of str to str
    points : sequence of [name, value, time, step]
        Infinite values are named in the tag ``coala.infinite`` instead.
    """
    finite, infinite = set_infinities_apart(points)
    tags = dict(tags) | infinite
    events: list[Event] = []
    if params:
        events.append(document_event(run, "config.json", params))
    if any(len(value) > TAG_CHARACTERS for value in tags.values()):
        events.append(document_event(run, "tags.json", tags))
    short_params = shorten(flatten(params), PARAM_CHARACTERS, "config.json")
    return events + list(batches(run, short_params, shorten(tags, TAG_CHARACTERS, "tags.json"), finite))


def document_event(run: str, artifact: str, content: Mapping[str, Any]) -> Event:
    """Store a mapping as a JSON artifact; its text travels in the journal."""
    return {"event": "document", "run": run, "artifact": artifact, "text": json.dumps(content, indent=2, default=str)}


def input_events(run: str, datasets: Sequence[DatasetUse]) -> list[Event]:
    """Say which data a run used."""
    return [{"event": "inputs", "run": run, "datasets": [list(use) for use in datasets]}] if datasets else []


def file_events(run: str, files: Sequence[Path], store: Path) -> list[Event]:
    """Attach files, by their path in the store where they lie in it, so that a moved store still has them.

    Raises
    ------
    ValueError
        If two files have one name, since the second would overwrite the first.
    """
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`Tracker.log_stage(files=...)` must hold files of different names, got {sorted(names)}; rename one."
        )
    return [{"event": "file", "run": run, "path": _place(path, store)} for path in files]


def model_event(run: str, parent: str, model: HeadModel, store: Path) -> Event:
    """Make a head a model of MLflow, an output of its run and of the parent; until then its files stay in place."""
    content = asdict(model)
    content["params"] = shorten(flatten(model.params), PARAM_CHARACTERS, "head.json")
    return {"event": "model", "run": run, "parent": parent, **content, "folder": _place(model.folder, store)}


def score_event(run: str, metrics: Mapping[str, Any], dataset: tuple[str, str], time: int) -> Event:
    """Log how a run's model did on a data set, given by name and digest."""
    points, _ = set_infinities_apart(metric_points(metrics, time, 0))
    return {"event": "scores", "run": run, "metrics": points, "dataset": list(dataset)}


def _place(path: Path, store: Path) -> str:
    """Path in the store where it lies in it, else the whole path."""
    whole, root = path.resolve(), store.resolve()
    return str(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested parameters into text under dotted names.

    >>> flatten({"solve": {"gates": 50, "path": (0.5, 0.25)}, "model": "builtin"})
    {'solve.gates': '50', 'solve.path': '[0.5, 0.25]', 'model': 'builtin'}
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def accepted_name(name: str) -> str:
    """`name` as MLflow accepts it: itself nearly always, else with underscores, and short.

    >>> accepted_name("rewards/margins"), accepted_name("gap (certified)"), accepted_name("../loss")
    ('rewards/margins', 'gap _certified_', 'loss')
    """
    clean = posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", name)).lstrip("./")
    return (clean if len(clean) <= NAME_CHARACTERS else clean[:NAME_CHARACTERS].rstrip("/.")) or "_"


def shorten(values: Mapping[str, str], limit: int, artifact: str) -> dict[str, str]:
    """Replace values longer than `limit` by a note that names the artifact holding them whole."""
    return {
        accepted_name(key): value if len(value) <= limit else f"({len(value)} characters, whole in artifact {artifact})"
        for key, value in values.items()
    }


def metric_points(values: Mapping[str, Any], time: int, step: int) -> list[Point]:
    """Points of the numeric values of a row; text and None are no metrics and are left out."""
    return [
        [accepted_name(key), "nan" if math.isnan(value) else float(value), time, step]
        for key, value in values.items()
        if isinstance(value, Real)
    ]


def set_infinities_apart(points: Sequence[Point]) -> tuple[list[Point], dict[str, str]]:
    """Split off infinite points, which MLflow would store as 1.8e308, into a tag that names them."""
    finite = [point for point in points if point[1] == "nan" or math.isfinite(point[1])]
    infinite = [f"{name} {value:+} at {step}" for name, value, _, step in points if value in (math.inf, -math.inf)]
    return finite, {"coala.infinite": ", ".join(infinite)} if infinite else {}


def batches(run: str, params: Mapping[str, str], tags: Mapping[str, str], points: Sequence[Point]) -> Iterator[Event]:
    """Cut what a run logs into "log" events that each fit one request."""
    items = [("params", [*item]) for item in params.items()] + [("tags", [*item]) for item in tags.items()]
    limits = {"params": BATCH_PARAMS, "tags": BATCH_TAGS, "metrics": BATCH_METRICS}
    batch: Event = {"event": "log", "run": run, "params": [], "tags": [], "metrics": []}
    size = 0
    for kind, item in items + [("metrics", point) for point in points]:
        cost = len(json.dumps(item)) + 60
        if len(batch[kind]) == limits[kind] or size + cost > BATCH_BYTES:
            yield batch
            batch, size = batch | {"params": [], "tags": [], "metrics": []}, 0
        batch[kind].append(item)
        size += cost
    if size:
        yield batch


def stage_points(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]], step: str, time: int) -> list[Point]:
    """Points of a stage: each history row at the step its column `step` holds, and the report at step 0.

    A report value whose name the history has too is called ``final/<name>``, lest it become a point of that curve.

    Raises
    ------
    ValueError
        If a history row lacks the column `step`.
    """
    points: list[Point] = []
    for row in history:
        if step not in row:
            raise ValueError(
                f"`Tracker.log_stage(history=...)` needs the column {step!r} in every row, got {sorted(row)}; "
                "name the column that counts steps with `step=`."
            )
        values = {key: value for key, value in row.items() if key != step}
        points += metric_points(values, time, int(row[step]))
    curves = {key for row in history for key in row}
    named = {f"final/{key}" if key in curves else key: value for key, value in report.items()}
    return points + metric_points(named, time, 0)
