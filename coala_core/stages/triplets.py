"""Stage ``triplets``: conversations in, (prompt, chosen, rejected) out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coala_core.config import TripletsConfig
from coala_core.progress import Progress, silent
from coala_core.sources import resolve_conversations
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace
from coala_core.triplets import write_triplets

STAGE = "triplets"
REVISION = 3
TRIPLETS = "triplets.parquet"
REJECTS = "rejects.jsonl"


def plan(store: Store, config: TripletsConfig) -> Plan:
    """Key of the triplets: names and bytes of the files, and how they are read."""
    unused = set() if config.pairs == "window" else {"window"}
    identity: dict[str, Any] = {
        **config.model_dump(exclude={"conversations", *unused}),
        "files": [[file.name, file.digest()] for file in resolve_conversations(config.conversations)],
    }
    return Plan(STAGE, REVISION, config.model_dump(), {}, identity)


def run(store: Store, config: TripletsConfig, progress: Progress = silent) -> Artifact:
    """Read conversations or ready triplets, and write ``triplets.parquet`` and ``rejects.jsonl``.

    The Parquet file loads as it is with `datasets.load_dataset("parquet", ...)` and is a conversational
    preference data set to TRL.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : TripletsConfig
        The files, and how to read them.
    progress : Progress
        Told rows read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no row of them can be used.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()

        def fill(triplets: Path) -> None:
            workspace.write(REJECTS, lambda rejects: fill_both(triplets, rejects))

        def fill_both(triplets: Path, rejects: Path) -> None:
            workspace.report = write_triplets(config, triplets, rejects, progress)

        workspace.write(TRIPLETS, fill)

    return produce(store, plan(store, config), compute)
