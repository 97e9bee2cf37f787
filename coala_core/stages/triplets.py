"""Stage ``triplets``: conversations in, (prompt, chosen, rejected) out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import TripletsConfig
from coala_core.progress import Progress, silent
from coala_core.sources import resolve_conversations
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace, digest, file_digest
from coala_core.triplets import build_triplets

STAGE = "triplets"
REVISION = 2
_ROW_GROUP = 4096
TRIPLETS = "triplets.parquet"
REJECTS = "rejects.jsonl"


def plan(store: Store, config: TripletsConfig) -> Plan:
    """Key of the triplets: the file's bytes and name, and how they are read."""
    path = resolve_conversations(config.conversations)
    identity: dict[str, Any] = {
        **config.model_dump(exclude={"conversations"}),
        "name": path.name,
        "sha256": file_digest(path),
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
        The file, and how to read it.
    progress : Progress
        Told rows read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no row of it can be used.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        built = build_triplets(config, progress)
        rejects = [asdict(reject) for reject in built.rejects]
        workspace.write(TRIPLETS, lambda path: _write(built.table, path))
        workspace.write_lines(REJECTS, rejects)
        workspace.report = {**built.report, "texts_sha256": texts_digest(built.table)}

    return produce(store, plan(store, config), compute)


def _write(table: pa.Table, path: Path) -> None:
    """Write row groups that a reader can hold one at a time."""
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)


def texts_digest(table: pa.Table) -> str:
    """Digest of ids and texts in order, which is all of the triplets that features depend on."""
    return digest(table.select(["pair_id", "prompt", "chosen", "rejected"]).to_pylist())
