"""Generated tutoring conversations and quick settings, so that a whole pipeline takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from coala_core.config import PipelineConfig, parse_config

QUESTIONS = ("How do I start?", "Why is that?", "And then?", "Can you explain it again?", "What if x is negative?")
EARLY = ("Let us look at it together:", "Good question!", "First subtract three from both sides.")
LATE = ("I told you before.", "The sum is 180 degrees.", "Look it up:")
SUBJECTS = ("the triangle", "the equation", "the base line", "the second step", "the angle")

QUICK: dict[str, dict[str, Any]] = {
    "split": {"train": 0.6, "validation": 0.2},
    "embed": {"layers": [2], "shard_rows": 16, "device": "cpu"},
    "solve": {"gates": 6, "probe_gates": 2, "path": [0.4, 0.1], "max_sweeps": 200, "backend": "numpy"},
    "finetune": {"epochs": 12, "batch_size": 16},
    "evaluate": {"resamples": 100},
}
"""Settings with which every stage takes well under a second on generated lessons."""


def lesson(number: int, replies: int = 4) -> dict[str, Any]:
    """One conversation; replies sound less patient the later they come, so there is something to learn."""
    rng = np.random.default_rng(number)
    utterances = []
    for turn in range(replies):
        subject = SUBJECTS[rng.integers(len(SUBJECTS))]
        opening = (EARLY if rng.random() > turn / replies else LATE)[rng.integers(3)]
        utterances.append(["agent2", f"{QUESTIONS[rng.integers(len(QUESTIONS))]} ({number})"])
        utterances.append(["agent1", f"{opening} See {subject}, number {rng.integers(100)}."])
    return {"id": f"lesson-{number:05d}", "topic": SUBJECTS[number % len(SUBJECTS)], "utterances": utterances}


def write_lessons(path: Path, conversations: int = 24, replies: int = 4) -> Path:
    """Write conversations as JSON lines."""
    rows = [lesson(number, replies) for number in range(conversations)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def quick_config(store: Path, conversations: Path, model: Path, **sections: dict[str, Any]) -> PipelineConfig:
    """`QUICK` with further settings by section."""
    content: dict[str, Any] = {name: dict(values) for name, values in QUICK.items()}
    content |= {"store": str(store), "triplets": {"conversations": str(conversations)}}
    content["embed"]["model"] = str(model)
    for name, values in sections.items():
        content[name] = content.get(name, {}) | values
    return parse_config(content, PipelineConfig, source="quick_config")


def digests(artifact_folder: Path) -> dict[str, str]:
    """SHA-256 of every file that the manifest lists, and of the manifest, computed from the bytes on disk."""
    from coala_core.storage import MANIFEST, file_digest

    names = json.loads((artifact_folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return {name: file_digest(artifact_folder / name) for name in (*names, MANIFEST)}
