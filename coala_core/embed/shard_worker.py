"""One unit of embedding work: a Parquet file of pairs in, a shard of features out.

A job names files only, so any process on any machine that reaches them can do it; done twice, it
leaves the same shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from coala_core.config import EmbedConfig
from coala_core.embed.embed_pairs import Embedded, TextPair, Work, embed_pairs
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.model_source import locate_model, materialise
from coala_core.feature_cache import FeatureCache
from coala_core.feature_cache.notes import ShardNote
from coala_core.feature_table import column_name, feature_table
from coala_core.progress import Progress, silent
from coala_core.storage import Damaged, Store


@dataclass(frozen=True)
class ShardJob:
    """What a worker has to know of a shard."""

    space: str
    """Key of the space that the shard belongs to."""
    name: str
    pairs: str
    """Where the Parquet file of the shard's pairs lies; column `key` beside those of the triplets."""


@dataclass(frozen=True)
class ShardResult:
    """What a worker says of a finished shard."""

    job: ShardJob
    note: ShardNote
    work: Work
    seconds: float
    """Time that the shard took, without loading the language model."""
    peak: float
    """Matrix-multiply rate of the worker's device in the model's precision, FLOP/s."""
    unshared: str | None
    """Why common prefixes were computed more than once; None if they were not."""


@dataclass(frozen=True)
class WorkerSettings:
    """What all workers of a run have to know; it can be pickled.

    Parameters
    ----------
    config : EmbedConfig
        Layers, precision and window filled in.
    fingerprint : str
        The language model that the features are to come from.
    store : str
        Store on the worker's machine, for the converted built-in model.
    cache : str
        Folder or URL of the feature cache.
    """

    config: EmbedConfig
    fingerprint: str
    store: str
    cache: str


class ShardWorker:
    """Holds the language model and embeds one shard after another.

    Parameters
    ----------
    settings : WorkerSettings
        What all workers share.
    progress : Progress
        Told pairs done of the shard at hand.

    Raises
    ------
    ValueError
        If the model is not to be had here, or is another one than the run asks for.
    """

    def __init__(self, settings: WorkerSettings, progress: Progress = silent) -> None:
        store = Store(settings.store)
        source = locate_model(settings.config, store)
        if source.fingerprint != settings.fingerprint:
            raise ValueError(
                f"`embed.model={settings.config.model}` must be the same model on every worker, got fingerprint "
                f"{source.fingerprint[:24]} in place of {settings.fingerprint[:24]}; copy the model, or name a revision"
            )
        self.config = settings.config
        self.model: LanguageModel = load_language_model(materialise(source, store), settings.config)
        self._cache = FeatureCache(settings.cache)
        self._progress = progress

    def __call__(self, job: ShardJob) -> ShardResult:
        """Embed the job's pairs and write the shard."""
        peak = self.peak
        started = time.perf_counter()
        try:
            table = self._cache.take_pairs(job.pairs)
        except Damaged:
            # Another run that shares the cache may have made the shard, and taken its pairs away.
            if (note := self._made(job)) is None:
                raise
            return ShardResult(job, note, Work(), 0.0, peak, self.model.unshared)
        keys = table["key"].to_pylist()
        embedded = embed_pairs(text_pairs(table), self.model, self.config, self._progress)
        note = self._cache.write_shard(
            job.space, job.name, shard_table(keys, embedded), stored_columns(self.config), keys, asdict(embedded.work)
        )
        return ShardResult(job, note, embedded.work, time.perf_counter() - started, peak, self.model.unshared)

    def _made(self, job: ShardJob) -> ShardNote | None:
        notes = self._cache.notes(job.space)
        return next((note for note in notes if isinstance(note, ShardNote) and note.name == job.name), None)

    @cached_property
    def peak(self) -> float:
        """Matrix-multiply rate of the device, measured once."""
        return matmul_rate(self.model)


def start_worker(settings: WorkerSettings, progress: Progress = silent) -> Callable[[ShardJob], ShardResult]:
    """Load the language model and return the worker; a function of the module, so that it can be pickled."""
    return ShardWorker(settings, progress)


def text_pairs(table: pa.Table) -> list[TextPair]:
    """Pairs of a table with the triplets' columns."""
    return [
        TextPair(row["pair_id"], tuple(row["prompt"]), row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in table.to_pylist()
    ]


def stored_columns(config: EmbedConfig) -> list[str]:
    """Name each stored layer and pooling; layers must be filled in."""
    return [column_name(layer, pooling) for layer in config.layers for pooling in config.poolings]


def shard_table(keys: list[str], embedded: Embedded) -> pa.Table:
    """Make the table of a shard: key, features, and what happened to each pair's texts."""
    table = feature_table(keys, embedded.features)
    for name, values in embedded.facts.items():
        table = table.append_column(name, pa.array(values))
    return table


def matmul_rate(model: LanguageModel) -> float:
    """Measure the matrix-multiply rate of the model's device in its precision, in FLOP/s: the bound of embedding."""
    import torch

    size = 8192 if model.device.type == "cuda" else 1024
    left, right = (torch.ones(size, size, dtype=model.dtype, device=model.device) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def performance(results: list[ShardResult], seconds: float) -> Mapping[str, Any]:
    """Speed of a run: what its shards cost in tokens, time and share of the device's peak.

    Parameters
    ----------
    results : list of ShardResult
        Shards computed in this run; none if everything was reused.
    seconds : float
        Wall-clock time of computing them.
    """
    work = Work()
    for result in results:
        work.add(result.work)
    if not work.computed_tokens:
        return {"computed_tokens": 0}
    bound = sum(result.seconds * result.peak for result in results)
    return {
        "computed_tokens": work.computed_tokens,
        "tokens_per_s": work.computed_tokens / seconds,
        "computed_share": work.computed_tokens / work.tokens,
        "distinct_share": work.distinct_tokens / work.tokens,
        "padding_share": work.padding / (work.computed_tokens + work.padding),
        "model_flop_utilisation": work.flops / bound,
        "peak_flops_per_s": max(result.peak for result in results),
        "unshared": next((result.unshared for result in results if result.unshared), None),
    }


def describe_performance(facts: Mapping[str, Any]) -> str:
    """Say in a clause what `performance` found."""
    if not facts.get("computed_tokens"):
        return "no token computed"
    clause = (
        f"{facts['computed_tokens']:,} tokens computed, {facts['computed_share']:.0%} of their rows' tokens, at "
        f"{facts['tokens_per_s']:,.0f}/s, {facts['model_flop_utilisation']:.0%} of the processor's matrix-multiply rate"
    )
    return f"{clause}; common prefixes were not shared: {facts['unshared']}" if facts["unshared"] else clause
