"""Stage ``split``: whole groups to train, validation and test by hash, and a check for leaks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Literal, NamedTuple

import pyarrow as pa

from coala_core.config import SplitConfig

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SPLIT_SCHEMA = pa.schema([("pair_id", pa.string()), ("group", pa.string()), ("split", pa.string())])
"""Columns of the artifact, one row per triplet."""

_NEEDED = ("pair_id", "group", "prompt", "chosen", "rejected")
_BATCH_ROWS = 1024
_DIGEST_BYTES = 16


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
        ``"validation/test"``, after case folding and collapsing whitespace.
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
    _check_input(triplets)
    groups = triplets["group"].to_pylist()
    by_group = {group: assign_split(group, config) for group in dict.fromkeys(groups)}
    splits = [by_group[group] for group in groups]
    table = pa.table([triplets["pair_id"].to_pylist(), groups, splits], schema=SPLIT_SCHEMA)
    check_leakage(table)
    pairs, members = Counter(splits), Counter(by_group.values())
    _check_none_empty(pairs, len(by_group), config)
    report: dict[str, object] = {
        "pairs": {split: pairs[split] for split in SPLITS},
        "groups": {split: members[split] for split in SPLITS},
        "groups_straddling": len(_straddling(table)),
        "shared_texts": _shared_texts(triplets, splits),
    }
    return SplitTable(table, report)


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


def _straddling(table: pa.Table) -> list[str]:
    """Return the groups that occur in more than one split, in order."""
    homes: dict[str, str] = {}
    rows = zip(table["group"].to_pylist(), table["split"].to_pylist(), strict=True)
    return list(dict.fromkeys(group for group, split in rows if homes.setdefault(group, split) != split))


def _check_input(triplets: pa.Table) -> None:
    """Refuse a table that cannot be split."""
    missing = [name for name in _NEEDED if name not in triplets.column_names]
    if missing:
        raise ValueError(
            f"`split_table(triplets=...)` needs the columns {', '.join(_NEEDED)}, got none named {', '.join(missing)}; "
            "pass the table of `build_triplets`."
        )
    if triplets.num_rows == 0:
        raise ValueError("`split_table(triplets=...)` needs at least one triplet, got 0 rows; build triplets first.")
    _check_pairs_unique(triplets, "split_table(triplets=...)")


def _check_pairs_unique(table: pa.Table, call: str) -> None:
    """Refuse a repeated pair_id."""
    repeated = table.num_rows - len(table["pair_id"].unique())
    if repeated:
        raise ValueError(f"`{call}` needs distinct pair_id values, got {repeated} repeated; build the triplets again.")


def _check_none_empty(pairs: Counter[Split], groups: int, config: SplitConfig) -> None:
    """Refuse a split without pairs."""
    empty = [split for split in SPLITS if not pairs[split]]
    if empty:
        raise ValueError(
            f"`split_table` needs pairs in every split, got none in {' and '.join(empty)} from {groups} groups "
            f"(train={config.train}, validation={config.validation}, seed={config.seed}); "
            "take another seed, other shares or more groups."
        )


def _shared_texts(triplets: pa.Table, splits: list[Split]) -> dict[str, dict[str, int]]:
    """Count distinct texts that occur in both of two splits."""
    seen: dict[str, dict[str, set[bytes]]] = {
        kind: {split: set() for split in SPLITS} for kind in ("prompts", "responses")
    }
    for split, row in zip(splits, _rows(triplets), strict=True):
        seen["prompts"][split].add(_digest(row["prompt"][-1]["content"]))
        seen["responses"][split].update(_digest(row[side][0]["content"]) for side in ("chosen", "rejected"))
    return {
        kind: {f"{one}/{other}": len(texts[one] & texts[other]) for one, other in combinations(SPLITS, 2)}
        for kind, texts in seen.items()
    }


def _rows(triplets: pa.Table) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Stream the text columns row by row."""
    for batch in triplets.select(["prompt", "chosen", "rejected"]).to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


def _digest(text: str) -> bytes:
    """Digest a text after case folding and collapsing whitespace."""
    normalised = " ".join(text.casefold().split())
    return hashlib.blake2b(normalised.encode("utf-8"), digest_size=_DIGEST_BYTES).digest()
