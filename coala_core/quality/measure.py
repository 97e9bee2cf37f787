"""Measure a file of triplets, in one pass over it and little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import QualityConfig
from coala_core.progress import Progress, silent
from coala_core.quality.batches import count_pairs, read_batches
from coala_core.quality.languages import language_mix
from coala_core.quality.leaks import LeakCollector
from coala_core.quality.lengths import by_position, by_turn, length_bias, length_by_turn
from coala_core.quality.limits import verdicts
from coala_core.quality.markers import MarkerCollector
from coala_core.quality.near_duplicates import near_duplicates
from coala_core.quality.numbers import (
    NumberCollector,
    PairNumbers,
    distribution,
    largest_groups,
    last_turns,
    size_report,
)
from coala_core.quality.rejects import rows_report
from coala_core.quality.sample import SampleCollector

SHOWN_GROUPS = 12


@dataclass(frozen=True)
class Quality:
    """What `assess` gives back."""

    report: dict[str, Any]
    """Measures and verdicts, ready for JSON."""
    numbers: PairNumbers
    """Numbers of every pair, for pictures."""


def assess(
    triplets: Path,
    rejects: Path,
    triplets_report: Mapping[str, Any],
    config: QualityConfig,
    split: Path | None = None,
    split_report: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Quality:
    """Measure what the pairs are like, and compare with the limits.

    Parameters
    ----------
    triplets, rejects : Path
        ``triplets.parquet`` and ``rejects.jsonl`` of the stage ``triplets``.
    triplets_report : mapping
        That stage's report.
    config : QualityConfig
        Sample, similarity, limits and seed.
    split, split_report : Path and mapping, optional
        ``split.parquet`` of these triplets and the report of its stage; without them leaks are not measured.
    progress : Progress
        Told pairs read, then texts compared.

    Returns
    -------
    Quality
        Sections of the report: ``rows``, ``size``, ``dialogues``, ``groups``, ``length_bias``, ``position``,
        ``near_duplicates``, ``leaks`` (None without a split), ``languages``, ``markers``, ``samples``, ``limits``.

    Raises
    ------
    ValueError
        If the file holds no triplet, the split is of other triplets, or it came without its report.
    """
    pairs = count_pairs(triplets)
    if not pairs:
        raise ValueError(f"`assess(triplets={str(triplets)!r})` needs at least one triplet, got none; build triplets.")
    if (split is None) is not (split_report is None):
        raise ValueError(
            "`assess(split=..., split_report=...)` needs both or neither, got one; pass the file and the report of one "
            "split"
        )
    numbers, markers = NumberCollector(), MarkerCollector()
    sample = SampleCollector(pairs, config.sample, config.seed)
    leaks = LeakCollector(_rows_in_test(split, pairs)) if split else None
    for batch in read_batches(triplets):
        for collector in (numbers, markers, sample, leaks):
            if collector is not None:
                collector.add(batch)
        progress(batch.start + len(batch), pairs, "pairs")
    measured = numbers.numbers()
    report = {
        "rows": rows_report(triplets_report, rejects),
        **_whole_file(measured, triplets, alternating=triplets_report["replies_mean"] is not None),
        **_sampled(sample, config, progress),
        "leaks": leaks.report(split_report["shared_texts"]) if leaks and split_report else None,
        "markers": markers.report(),
    }
    report["limits"] = [verdict._asdict() for verdict in verdicts(report, config)]
    return Quality(report, measured)


def _rows_in_test(split: Path, pairs: int) -> NDArray[np.bool_]:
    """Read which rows the test split holds."""
    names = pq.read_table(split, columns=["split"])["split"]
    if len(names) != pairs:
        raise ValueError(
            f"`assess(split={str(split)!r})` must be the split of the triplets given, got {len(names)} rows for "
            f"{pairs} triplets; split these triplets."
        )
    in_test: NDArray[np.bool_] = pc.equal(names, "test").to_numpy()
    return in_test


def _whole_file(numbers: PairNumbers, triplets: Path, alternating: bool) -> dict[str, Any]:
    """Measure what is counted over all pairs."""
    characters, turns = numbers.characters, by_turn(numbers)
    return {
        "size": size_report(numbers),
        "dialogues": {"last_turn": distribution(last_turns(numbers))} if alternating else None,
        "groups": _groups(numbers, triplets) if numbers.groups < numbers.conversations else [],
        "length_bias": length_bias(characters["chosen"], characters["rejected"], numbers.group),
        "position": {
            "population": "alternating" if alternating else "ready pairs",
            "turns": turns,
            "length_by_turn": length_by_turn(turns),
            "replies": by_position(numbers) if alternating else [],
        },
    }


def _groups(numbers: PairNumbers, triplets: Path) -> list[dict[str, Any]]:
    """Name the largest groups, where a group is more than a conversation."""
    largest = largest_groups(numbers, SHOWN_GROUPS)
    names = dict(_names_at(triplets, sorted(row for row, _ in largest)))
    return [{"group": names[row], "pairs": pairs, "share": pairs / len(numbers)} for row, pairs in largest]


def _names_at(triplets: Path, rows: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Read the group of some rows, in order."""
    wanted, start = list(rows), 0
    with pq.ParquetFile(triplets) as file:
        for batch in file.iter_batches(columns=["group"]):
            while wanted and wanted[0] < start + batch.num_rows:
                row = wanted.pop(0)
                yield row, batch.column(0)[row - start].as_py()
            start += batch.num_rows


def _sampled(sample: SampleCollector, config: QualityConfig, progress: Progress) -> dict[str, Any]:
    """Measure what is counted on the sample."""
    pairs = sample.sampled
    responses = ((pair.conversation_id, text) for pair in pairs for text in (pair.chosen, pair.rejected))
    return {
        "near_duplicates": {
            **near_duplicates(responses, config.similarity, config.seed, progress),
            "similarity": config.similarity,
            "sampled_pairs": len(pairs),
        },
        "languages": language_mix(pair.chosen for pair in pairs),
        "samples": [pair._asdict() for pair in sample.shown],
    }
