"""Features and labels that the pipeline's Phase I gets from book2dial: embedded once, then kept in data/store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coala_core.config import EmbedConfig, SolveConfig, SplitConfig, TripletsConfig
from coala_core.features import stack_rows
from coala_core.stages import embed, split, triplets
from coala_core.stages.inputs import pairs_of, setting
from coala_core.storage import Store
from flows.cli import quiet_environment
from tests.bench.pipeline import write_conversations
from tests.bench.solver.measure import Floats


def features_and_labels(folder: Path) -> tuple[NDArray[np.float32], Floats]:
    """Training rows of the conversations that `make bench-pipeline` uses, default settings, split by title."""
    quiet_environment()
    folder.mkdir(parents=True, exist_ok=True)
    conversations = folder / "book2dial-280.jsonl"
    write_conversations(conversations)
    store = Store(folder / "store")
    made = triplets.run(store, TripletsConfig(conversations=str(conversations), group_by="title"))
    divided, embedded = split.run(store, SplitConfig(), made), embed.run(store, EmbedConfig(), made)
    layer = SolveConfig().layer or setting(embedded, "layers")[0]
    pooling = SolveConfig().pooling or setting(embedded, "poolings")[0]
    features, labels = stack_rows(pairs_of(store, embedded, divided, layer, pooling)["train"])
    return features, labels.astype(np.float64)
