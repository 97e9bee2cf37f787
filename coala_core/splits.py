"""Stage ``split``: whole groups to train, validation and test by hash, and a check for leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import SplitConfig
from coala_core.progress import Progress, silent
from coala_core.text_hashes import Repetitions, text_hash

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SPLIT_SCHEMA = pa.schema([("pair_id", pa.string()), ("group", pa.string()), ("split", pa.string())])
"""Columns of the artifact, one row per triplet."""

_TEXTS = ("prompt", "chosen", "rejected")
_NEEDED = ("pair_id", "group", *_TEXTS)
_BATCH_ROWS = 4096
_BATCH_IDS = 65_536
_REMEMBERED_TEXTS = 256

_Codes = NDArray[np.int8]  # positions in SPLITS


class SplitTable(NamedTuple):
    """What the stage gives back.

    Attributes
    ----------
    table : pyarrow.Table
        Of `SPLIT_SCHEMA`, in the order of the triplets.
    report : dict
        ``pairs`` and ``groups`` by split; ``groups_straddling``, counted from the table and always 0;
        ``shared_texts``: for ``prompts`` (last messages) and ``responses`` (chosen and rejected), how many
        distinct texts occur in both splits of ``"train/validation"``, ``"train/test"`` and
        ``"validation/test"``, after case folding and collapsing whitespace. Texts are compared by 64-bit hashes: of n
        distinct texts, two are taken for one with a probability below n^2 / 2^65, which is 5e-7 for four million.
    """

    table: pa.Table
    report: dict[str, object]


def assign_split(group: str, config: SplitConfig) -> Split:
    """Assign one group, from nothing but its name and the configuration.

    SHA-256 of ``{seed}:{group}`` gives a number in [0, 1), compared with the shares. Row order and other groups
    have no say, so data may grow without moving what is already assigned.

    Parameters
    ----------
    group : str
        Value of the group field.
    config : SplitConfig
        Shares in (0, 1) with a sum below 1, and the seed.
    """
    digest = hashlib.sha256(f"{config.seed}:{group}".encode()).digest()
    position = (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits fit a float, so 1.0 cannot come out
    if position < config.train:
        return "train"
    return "validation" if position < config.train + config.validation else "test"


def split_table(triplets: pa.Table, config: SplitConfig) -> SplitTable:
    """Assign every triplet, check that no group straddles, and count the texts that splits share.

    Parameters
    ----------
    triplets : pyarrow.Table
        Of `coala_core.triplets.TRIPLET_SCHEMA`; further columns are ignored.
    config : SplitConfig
        Shares and seed.

    Raises
    ------
    ValueError
        If a column is missing, there are no rows, a `pair_id` repeats, or a split would be empty.
    """
    _require_columns(triplets.schema, "split_table(triplets=...)")
    texts = triplets.select(list(_TEXTS)).to_batches(max_chunksize=_BATCH_ROWS)
    return _split(triplets.select(["pair_id", "group"]), texts, config, "split_table(triplets=...)")


def split_file(triplets: Path, config: SplitConfig, progress: Progress = silent) -> SplitTable:
    """Do the same with a Parquet file, of which the ids are held in memory and the texts are not.

    Parameters
    ----------
    triplets : Path
        Parquet file of `coala_core.triplets.TRIPLET_SCHEMA`; further columns are ignored.
    config : SplitConfig
        Shares and seed.
    progress : Progress
        Told pairs compared.

    Raises
    ------
    ValueError
        As `split_table`.
    """
    with pq.ParquetFile(triplets, pre_buffer=False) as file:  # a buffer would grow to the whole file
        call = f"split_file({str(triplets)!r})"
        _require_columns(file.schema_arrow, call)
        total = file.metadata.num_rows

        def texts() -> Iterable[pa.RecordBatch]:
            done = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=[f"{name}.list.element.content" for name in _TEXTS]):
                yield batch
                done += batch.num_rows
                progress(done, total, "pairs")

        return _split(file.read(["pair_id", "group"]), texts(), config, call)


def check_leakage(table: pa.Table) -> None:
    """Prove on a finished table that no group and no pair lies in two splits.

    Parameters
    ----------
    table : pyarrow.Table
        Of `SPLIT_SCHEMA`, from any source.

    Raises
    ------
    ValueError
        If a group straddles splits or a `pair_id` repeats.
    """
    straddling = _straddling(table)
    if straddling:
        raise ValueError(
            f"`check_leakage(table)` needs every group in one split, got {len(straddling)} in several, "
            f"first {straddling[0]!r}; split again with `split_table`."
        )
    _check_pairs_unique(table, "check_leakage(table)")


def _split(ids: pa.Table, texts: Iterable[pa.RecordBatch], config: SplitConfig, call: str) -> SplitTable:
    """Split by the columns `pair_id` and `group`, then compare the texts, which come in the same order."""
    if ids.num_rows == 0:
        raise ValueError(f"`{call}` needs at least one triplet, got 0 rows; build triplets first.")
    _check_pairs_unique(ids, call)
    group_codes, codes = _assign(ids["group"], config)
    table = pa.table([ids["pair_id"], ids["group"], _names(codes)], schema=SPLIT_SCHEMA)
    check_leakage(table)
    pairs, groups = _count(codes), _count(group_codes)
    _check_none_empty(pairs, len(group_codes), config)
    report: dict[str, object] = {
        "pairs": pairs,
        "groups": groups,
        "groups_straddling": len(_straddling(table)),
        "shared_texts": _shared_texts(texts, codes),
    }
    return SplitTable(table, report)


def _assign(groups: pa.ChunkedArray, config: SplitConfig) -> tuple[_Codes, _Codes]:
    """Return the split of every distinct group, each hashed once, and of every row."""
    encoded = groups.dictionary_encode().unify_dictionaries()
    names = encoded.chunk(0).dictionary
    numbers = {split: number for number, split in enumerate(SPLITS)}
    by_group = np.empty(len(names), dtype=np.int8)
    for start in range(0, len(names), _BATCH_IDS):
        part = names.slice(start, _BATCH_IDS).to_pylist()
        by_group[start : start + len(part)] = [numbers[assign_split(group, config)] for group in part]
    return by_group, np.concatenate([by_group[chunk.indices.to_numpy()] for chunk in encoded.chunks])


def _names(codes: _Codes) -> pa.Array:
    """Write splits out as words."""
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(SPLITS)).cast(pa.string())


def _count(codes: _Codes) -> dict[str, int]:
    """Count members by split."""
    return dict(zip(SPLITS, np.bincount(codes, minlength=len(SPLITS)).tolist(), strict=True))


def _straddling(table: pa.Table) -> list[str]:
    """Return the groups that occur in more than one split, in order."""
    homes = table.group_by(["group", "split"], use_threads=False).aggregate([])
    counts = homes.group_by("group", use_threads=False).aggregate([("split", "count")])
    straddling: list[str] = counts.filter(pc.field("split_count") > 1)["group"].to_pylist()
    return straddling


def _require_columns(schema: pa.Schema, call: str) -> None:
    """Refuse a table that is not one of triplets."""
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise ValueError(
            f"`{call}` needs the columns {', '.join(_NEEDED)}, got none named {', '.join(missing)}; "
            "pass the table of `build_triplets`."
        )


def _check_pairs_unique(table: pa.Table, call: str) -> None:
    """Refuse a repeated pair_id."""
    pair_ids = Repetitions()
    batches = table.select(["pair_id"]).to_batches(max_chunksize=_BATCH_IDS)
    for batch in batches:
        pair_ids.add(batch.column(0).to_pylist())
    found = pair_ids.found(pair_id for batch in batches for pair_id in batch.column(0).to_pylist())
    repeated = sum(found.values()) - len(found)
    if repeated:
        raise ValueError(f"`{call}` needs distinct pair_id values, got {repeated} repeated; build the triplets again.")


def _check_none_empty(pairs: dict[str, int], groups: int, config: SplitConfig) -> None:
    """Refuse a split without pairs."""
    empty = [split for split in SPLITS if not pairs[split]]
    if empty:
        raise ValueError(
            f"`split_table` needs pairs in every split, got none in {' and '.join(empty)} from {groups} groups "
            f"(train={config.train}, validation={config.validation}, seed={config.seed}); "
            "take another seed, other shares or more groups."
        )


def _shared_texts(batches: Iterable[pa.RecordBatch], codes: _Codes) -> dict[str, dict[str, int]]:
    """Count distinct texts that occur in both of two splits."""
    remember = lru_cache(_REMEMBERED_TEXTS)(_hash)  # the reply rejected in one triplet is often chosen in the next
    prompts, responses = bytearray(), bytearray()
    for batch in batches:
        prompt, chosen, rejected = (_last_contents(batch.column(name)).to_pylist() for name in _TEXTS)
        prompts += b"".join(map(remember, prompt))
        responses += b"".join(map(remember, chain.from_iterable(zip(chosen, rejected, strict=True))))
    return {
        "prompts": _shared_hashes(prompts, codes),
        "responses": _shared_hashes(responses, np.repeat(codes, 2)),
    }


def _shared_hashes(joined: bytearray, codes: _Codes) -> dict[str, int]:
    """Count distinct hashes, of eight bytes each, that occur in both of two splits."""
    hashes = np.frombuffer(joined, dtype=np.uint64)
    distinct = {split: np.unique(hashes[codes == number]) for number, split in enumerate(SPLITS)}
    return {
        f"{one}/{other}": len(np.intersect1d(distinct[one], distinct[other], assume_unique=True))
        for one, other in combinations(SPLITS, 2)
    }


def _last_contents(messages: Any) -> pa.Array:
    """Return the text of every row's last message."""
    ends = np.cumsum(pc.list_value_length(messages).to_numpy())
    return messages.flatten().field("content").take(pa.array(ends - 1))


def _hash(text: str) -> bytes:
    """Hash a text after case folding and collapsing whitespace."""
    folded = text.casefold()
    # The only whitespace of printable text is the space; most texts are spared the list of their words.
    plain = folded.isprintable() and "  " not in folded
    return text_hash(folded.strip(" ") if plain else " ".join(folded.split()))
