"""A real pipeline on a tiny language model, stage by stage, recorded in MLflow without Prefect."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from coala_core.config import PipelineConfig, TrackingConfig
from coala_core.heads import read_head, write_head
from coala_core.stages import embed, evaluate, finetune, solve, split, triplets
from coala_core.storage import Artifact, Store
from tasks.measures import compared_metrics
from tasks.notes import NOTE, stage_note
from tasks.recorded_heads import head_model, log_verdict
from tasks.tracker import Tracker
from tests.lessons import quick_config

NAME = "easy pairs, tiny model"


class Run(NamedTuple):
    """A recorded run."""

    tracker: Tracker
    artifacts: dict[str, Artifact]

    @property
    def evaluation(self) -> str:
        return str(self.artifacts["evaluate"].path)


def write_pairs(path: Path, first: int = 0, pairs: int = 90) -> Path:
    """Ready pairs that even a random language model's features tell apart, one group each."""
    rows = [
        {
            "id": f"pair-{number}",
            "prompt": [{"role": "user", "content": f"How do I solve {number} x = {number * 3}?"}],
            "chosen": [{"role": "assistant", "content": f"Good question! What is {number} divided by {number}?"}],
            "rejected": [{"role": "assistant", "content": f"Look it up, number {number * 7}."}],
        }
        for number in range(first, first + pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(store: Path, pairs: Path, model: Path, **sections: dict[str, Any]) -> PipelineConfig:
    """Quick settings, in float32 so that numbers do not depend on what is batched together."""
    sections["embed"] = {"layers": [1, 2], "dtype": "float32"} | sections.get("embed", {})
    return quick_config(store, pairs, model, **sections)


def head_chain(config: PipelineConfig, *, wrong: bool = False) -> dict[str, Artifact]:
    """All six stages; `wrong` turns the tuned head's scores round."""
    store, made = Store(config.store), {}
    made["triplets"] = triplets.run(store, config.triplets)
    made["split"] = split.run(store, config.split, made["triplets"])
    made["embed"] = embed.run(store, config.embed, made["triplets"])
    made["solve"] = solve.run(store, config.solve, made["embed"], made["split"])
    tuned = finetune.run(store, config.finetune, made["solve"])
    made["finetune"] = turned_round(store, tuned, made["solve"]) if wrong else tuned
    made["evaluate"] = evaluate.run(store, config.evaluate, made["finetune"])
    return made


def turned_round(store: Store, tuned: Artifact, solved: Artifact) -> Artifact:
    """The same artifact with a head that prefers what the tuned one does not."""
    key = tuned.key[::-1]
    if found := store.find("finetune", key):
        return found
    head = read_head(tuned.path)
    workspace = store.workspace("finetune", key)
    card = json.loads((tuned.path / "head.json").read_text())
    write_head(workspace, replace(head, second_weight=-head.second_weight), card)
    workspace.report = tuned.report
    return store.seal(workspace, "finetune", key, tuned.manifest["config"], {"solve": solved}, 0.0)


def record(config: PipelineConfig, made: dict[str, Artifact], name: str = NAME) -> Run:
    """Record the stages as a run of the pipeline does."""
    store = Store(config.store)
    tracker = Tracker.open(store.root, TrackingConfig(), name, {})
    for stage, artifact in made.items():
        tags = {"coala.sha256": artifact.sha256, NOTE: stage_note(artifact, reused=False)}
        tracker.log_stage(
            stage,
            key=artifact.key,
            params=artifact.manifest["config"],
            report_metrics={},
            tags=tags,
            model=head_model(store, artifact),
        )
    log_verdict(tracker, store, made["evaluate"])
    tracker.log_parent(metrics=compared_metrics({stage: made[stage].report for stage in made}, {}))
    tracker.close()
    return Run(tracker, made)
