"""Stage ``split``: every group to train, validation or test."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import SplitConfig
from coala_core.progress import Progress, silent
from coala_core.splits import split_file
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.triplets import TRIPLETS
from coala_core.storage import Artifact, Store, Workspace

STAGE = "split"
REVISION = 2
SPLIT = "split.parquet"
_ROW_GROUP = 65_536


def plan(store: Store, config: SplitConfig, triplets: Artifact) -> Plan:
    """Key of the split: the triplets, the shares and the seed."""
    inputs = {"triplets": triplets}
    return Plan(STAGE, REVISION, config.model_dump(), inputs, {**config.model_dump(), **by_content(inputs)})


def run(store: Store, config: SplitConfig, triplets: Artifact, progress: Progress = silent) -> Artifact:
    """Assign whole groups to the splits, and prove that none straddles.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : SplitConfig
        Shares and seed.
    triplets : Artifact
        Of the stage ``triplets``.
    progress : Progress
        Told pairs compared.

    Raises
    ------
    ValueError
        If a split would be empty.
    """

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        result = split_file(triplets.path / TRIPLETS, config, progress)
        workspace.write(SPLIT, lambda path: _write(result.table, path))
        workspace.report = dict(result.report)

    return produce(store, plan(store, config, triplets), compute)


def _write(table: pa.Table, path: Path) -> None:
    """Write row groups that a reader can hold one at a time."""
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)
