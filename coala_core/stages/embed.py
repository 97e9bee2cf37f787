"""Stage ``embed``: the features of every response, as Parquet shards."""

from __future__ import annotations

import gc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coala_core.config import EmbedConfig
from coala_core.embed import EmbedCounts, TextPair, embed_pairs
from coala_core.language_model import LanguageModel, load_language_model, resolve_settings
from coala_core.model_source import ModelSource, locate_model, materialise
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace

STAGE = "embed"
REVISION = 1
_SEMANTIC = {"layer", "pooling", "max_tokens", "dtype", "shard_rows"}


def plan(store: Store, config: EmbedConfig, triplets: Artifact) -> Plan:
    """Key of the features: model, tokenizer, template, layer, pooling, truncation, precision and texts.

    Groups and file names are not part of it, nor are the device and the batch size, which move the
    features by rounding only.
    """
    source = locate_model(config, store)
    settings = resolve_settings(materialise(source, store), config)
    identity = {
        **settings.model_dump(include=_SEMANTIC),
        "model": source.fingerprint,
        "texts": triplets.report["texts_sha256"],
    }
    return Plan(STAGE, REVISION, settings.model_dump(), {"triplets": triplets}, identity)


def run(store: Store, config: EmbedConfig, triplets: Artifact, progress: Progress = silent) -> Artifact:
    """Embed the responses of a ``triplets`` artifact.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : EmbedConfig
        Model, layer, pooling, truncation.
    triplets : Artifact
        Of the stage ``triplets``.
    progress : Progress
        Told pairs done.

    Raises
    ------
    ValueError
        If the model is not to be had, or a text cannot be embedded; the pair is named.
    """
    planned = plan(store, config, triplets)

    def compute(workspace: Workspace) -> None:
        source = locate_model(config, store)
        pairs = read_text_pairs(triplets.path / "triplets.parquet")
        settings = EmbedConfig.model_validate(planned.config)
        model = load_language_model(materialise(source, store), settings, planned.config["layer"])
        counts = embed_pairs(pairs, model, settings, workspace, progress)
        workspace.report = _report(counts, source, model)
        # The solve must not share memory with the language model.
        del model
        gc.collect()

    return produce(store, planned, compute)


def read_text_pairs(path: Path) -> list[TextPair]:
    """Read (prompt, chosen, rejected) by id from a ``triplets.parquet``."""
    rows = pq.read_table(path, columns=["pair_id", "prompt", "chosen", "rejected"]).to_pylist()
    return [
        TextPair(row["pair_id"], tuple(row["prompt"]), row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in rows
    ]


def _report(counts: EmbedCounts, source: ModelSource, model: LanguageModel) -> dict[str, Any]:
    return {
        **asdict(counts),
        "model": source.label,
        "model_fingerprint": source.fingerprint,
        "layer": model.layer,
        "depth": model.depth,
        "hidden_size": model.hidden_size,
        "has_chat_template": model.tokenizer.chat_template is not None,
        "equal_feature_share": counts.equal_features / counts.pairs,
        "padding_share": counts.padding / (counts.tokens + counts.padding),
    }
