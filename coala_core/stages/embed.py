"""Stage ``embed``: the features of every response, gathered from the feature cache and computed where it has none."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coala_core.config import EmbedConfig
from coala_core.embed.embed_pairs import FACTS, Work
from coala_core.embed.model_settings import describe_model, resolve_settings
from coala_core.embed.model_source import ModelSource, locate_model, materialise
from coala_core.embed.reuse import Explanation, explain_reuse
from coala_core.embed.shard_worker import (
    ShardJob,
    ShardResult,
    WorkerSettings,
    describe_performance,
    performance,
    start_worker,
    stored_columns,
)
from coala_core.embed.shards import PlannedShard, TextReader, Texts, plan_shards, scan_texts
from coala_core.estimate import features_bytes, require_room
from coala_core.executors import make_executor
from coala_core.feature_cache import FeatureCache
from coala_core.feature_cache.notes import PAIRS, Lookup, Space
from coala_core.feature_table import ROWS, rows_table, write_rows_table
from coala_core.progress import Progress, silent
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Damaged, Stopwatch, Store, Workspace

logger = logging.getLogger("coala.embed")

STAGE = "embed"
REVISION = 2
FEATURES_REVISION = 1
"""Raised when equal texts, models and settings would give other features."""
_SEMANTIC = {"layers", "poolings", "max_tokens", "dtype"}
_SPACE = {"max_tokens", "dtype"}
_MEANS = {"cache", "executor", "workers", "cpus_per_worker", "gpus_per_worker", "ray_address"}
"""Settings of this machine, one of which may hold credentials; the manifest does without them."""
_REPAIRS = 2
"""Times that damaged shards are computed anew before damage that comes back is a failure."""


def plan(store: Store, config: EmbedConfig, triplets: Artifact) -> Plan:
    """Key of the features: model, tokenizer, template, layers, poolings, truncation, precision and texts.

    Groups and file names are not part of it, nor are device, batches, shards and workers, which move the
    features by rounding only.
    """
    source = locate_model(config, store)
    settings = resolve_settings(materialise(source, store), config)
    identity = {
        **settings.model_dump(include=_SEMANTIC),
        "model": source.fingerprint,
        "texts": triplets.report["texts_sha256"],
    }
    return Plan(STAGE, REVISION, settings.model_dump(exclude=_MEANS), {"triplets": triplets}, identity)


def run(store: Store, config: EmbedConfig, triplets: Artifact, progress: Progress = silent) -> Artifact:
    """Embed the responses of a ``triplets`` artifact, computing only what the feature cache does not have.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : EmbedConfig
        Model, layers, poolings, truncation, cache and workers.
    triplets : Artifact
        Of the stage ``triplets``.
    progress : Progress
        Told pairs done.

    Raises
    ------
    ValueError
        If the model is not to be had, or a text cannot be embedded; the pair is named.
    Damaged
        If shards of the cache are damaged again as soon as they are made.
    """
    planned = plan(store, config, triplets)

    def compute(workspace: Workspace) -> None:
        _Gathering(store, config.model_copy(update=dict(planned.config)), triplets, progress).into(workspace)

    return produce(store, planned, compute)


def explain(store: Store, config: EmbedConfig, triplets: Artifact) -> Explanation:
    """Say what `run` would reuse, shard by shard, and why it would not reuse the rest; nothing is computed.

    Raises
    ------
    ValueError
        As `run`.
    """
    planned = plan(store, config, triplets)
    gathering = _Gathering(store, config.model_copy(update=dict(planned.config)), triplets, silent)
    finished = store.is_intact(STAGE, planned.key)
    return explain_reuse(gathering.cache, gathering.space, gathering.columns, gathering.texts, finished)


def feature_cache(store: Store, config: EmbedConfig) -> FeatureCache:
    """Open the feature cache: the configured one, or `features` in the store."""
    return FeatureCache(config.cache or store.root / "features")


@dataclass
class _Gathering:
    """Brings the features of a triplets file together; settings have layers, precision and window filled in."""

    store: Store
    settings: EmbedConfig
    triplets: Artifact
    progress: Progress

    def __post_init__(self) -> None:
        self.source: ModelSource = locate_model(self.settings, self.store)
        self.space = Space(
            {
                **self.settings.model_dump(include=_SPACE),
                "model": self.source.label,
                "model_fingerprint": self.source.fingerprint,
                "revision": FEATURES_REVISION,
            }
        )
        self.columns = stored_columns(self.settings)
        self.cache = feature_cache(self.store, self.settings)
        self.texts: Texts = scan_texts(self._path)
        self.results: list[ShardResult] = []

    @property
    def _path(self) -> Path:
        return self.triplets.path / "triplets.parquet"

    def look_up(self) -> Lookup:
        """Find the pairs that the cache has."""
        return self.cache.find(self.space.key, self.columns, set(self.texts.keys))

    def into(self, workspace: Workspace) -> None:
        """Fill the artifact's folder."""
        watch = Stopwatch()
        self.cache.open_space(self.space)
        lookup, damage = self._complete(workspace)
        for _ in range(_REPAIRS):
            if damage is None:
                break
            logger.warning("%s", damage)
            lookup, damage = self._complete(workspace)
        if damage is not None:
            raise damage
        homes = [lookup.places[key] for key in self.texts.keys]
        rows = rows_table(self.texts.pair_ids, [home.shard for home in homes], [home.row for home in homes])
        workspace.write(ROWS, lambda path: write_rows_table(rows, path))
        workspace.report = self._report(lookup, workspace.path)
        workspace.performance = dict(performance(self.results, watch.seconds))
        logger.info("%s", describe_performance(workspace.performance))

    def _complete(self, workspace: Workspace) -> tuple[Lookup, Damaged | None]:
        """Compute what the cache does not have and bring all shards here; say so if one turns out damaged."""
        lookup = self.look_up()
        for shard in lookup.broken:
            logger.warning("%s/%s leaves %s: %s", self.space.key, shard.name, self.cache.label, shard.reason)
            self.cache.discard(self.space.key, shard.name)
        if missing := self._missing(lookup):
            self._require_room(len(missing))
            self._compute(missing)
            lookup = self.look_up()
        return lookup, self._fetch(lookup, workspace)

    def _require_room(self, missing: int) -> None:
        """Refuse before the language model is loaded what the disk cannot hold."""
        # From a cache elsewhere every shard is copied here, from one of this machine those are linked that it has.
        pairs = len(set(self.texts.keys)) if "://" in self.cache.url else missing
        width = describe_model(materialise(self.source, self.store))["hidden_size"]
        needed = features_bytes(pairs, len(self.columns), width, self.settings.shard_rows)
        require_room(self.store.root, needed, STAGE)

    def _missing(self, lookup: Lookup) -> set[str]:
        return set(self.texts.keys) - lookup.places.keys()

    def _fetch(self, lookup: Lookup, workspace: Workspace) -> Damaged | None:
        """Link or copy the shards; a damaged one leaves the cache, to be computed anew."""
        damage = None
        if missing := self._missing(lookup):
            damage = Damaged(
                f"`{self.cache.label}` must keep the shards of a run until it ends, got none for {len(missing)} "
                "texts; remove nothing from it meanwhile"
            )
        workspace.clear()
        for name, note in sorted(lookup.notes.items()):
            # Of a run that was killed before it could do so.
            self.cache.drop_pairs(f"{self.cache.url}/{self.space.key}/{name}{PAIRS}")
            try:
                self.cache.fetch(self.space.key, note, workspace.path / f"{name}.parquet")
            except Damaged as error:
                self.cache.discard(self.space.key, name)
                damage = error
        return damage

    def _compute(self, missing: set[str]) -> None:
        """Embed the missing pairs, shard by shard, through the executor."""
        shards = plan_shards(self.texts, missing, self.space.key, self.columns, self.settings.shard_rows)
        settings, total = self.settings, sum(len(shard.keys) for shard in shards)
        executor = make_executor(
            settings.executor,
            settings.workers,
            settings.cpus_per_worker,
            settings.gpus_per_worker,
            settings.ray_address,
        )
        done = 0

        def within_shard(pairs: int, _total: int, what: str) -> None:
            self.progress(done + pairs, total, what)

        # Only a worker in this process can say how far it is within a shard.
        inside = settings.executor == "local" and settings.workers == 1
        start = partial(start_worker, self._worker_settings(), within_shard if inside else silent)
        with closing(self._jobs(shards)) as jobs, closing(executor.map(start, jobs)) as results:
            for result in results:
                self.results.append(result)
                self.cache.drop_pairs(result.job.pairs)
                done += result.note.rows
                self.progress(done, total, "pairs")

    def _worker_settings(self) -> WorkerSettings:
        settings = self.settings
        if Path(settings.model).expanduser().is_dir():  # a worker may run in another folder
            settings = settings.model_copy(update={"model": str(self.source.directory)})
        return WorkerSettings(settings, self.source.fingerprint, str(self.store.root), self.cache.url)

    def _jobs(self, shards: Sequence[PlannedShard]) -> Generator[ShardJob, None, None]:
        """Write each job's pairs when a worker is about to ask for it."""
        reader = TextReader(self._path)
        try:
            for shard in shards:
                table = reader.take(shard.rows).append_column("key", pa.array(shard.keys, type=pa.string()))
                yield ShardJob(self.space.key, shard.name, self.cache.put_pairs(self.space.key, shard.name, table))
        finally:
            reader.close()

    def _report(self, lookup: Lookup, folder: Path) -> dict[str, Any]:
        work = Work()
        for note in lookup.notes.values():
            work.add(Work(**{name: int(value) for name, value in note.counts.items()}))
        facts = self._facts(lookup, folder)
        pairs = len(self.texts.pair_ids)
        return {
            "pairs": pairs,
            **facts,
            **{f"shard_{name}": value for name, value in vars(work).items()},
            "shards": len(lookup.notes),
            "equal_feature_share": facts["equal_features"] / pairs,
            "padding_share": work.padding / (work.computed_tokens + work.padding),
            "computed_share": work.computed_tokens / work.tokens,
            "distinct_share": work.distinct_tokens / work.tokens,
            "model": self.source.label,
            "model_fingerprint": self.source.fingerprint,
            "layers": list(self.settings.layers),
            "poolings": list(self.settings.poolings),
            **describe_model(materialise(self.source, self.store)),
        }

    def _facts(self, lookup: Lookup, folder: Path) -> dict[str, int]:
        """Sum up what happened to the texts of the pairs at hand, each counted as often as it occurs."""
        rows: dict[str, list[int]] = {}
        for key in self.texts.keys:
            home = lookup.places[key]
            rows.setdefault(home.shard, []).append(home.row)
        totals = dict.fromkeys(FACTS, 0)
        for shard, places in rows.items():
            with pq.ParquetFile(folder / f"{shard}.parquet") as file:
                table = file.read(columns=list(FACTS)).take(places)
            for name in FACTS:
                totals[name] += pc.sum(table[name]).as_py()
        return totals
