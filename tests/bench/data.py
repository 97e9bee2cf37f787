"""Measure how fast conversations on disk become split triplets on disk, and in how much memory.

Run by `make bench-data`; `python -m tests.bench.data --conversations 20000` is a quick look. The conversations are made
up, of the size of EduFeedback's: 4 to 8 turns of 150 to 400 characters, some with letters outside ASCII.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

from tests.bench.memory import peak_mib
from tests.bench.processor import processor

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "data" / "bench" / "data.json"
FOLDER = ROOT / "data" / "store" / "bench-data"
CONVERSATIONS = 1_000_000
SEED = 0
POOL_CHARACTERS = 1 << 24
TURNS, LENGTHS = (4, 8), (150, 400)
FIELDS = ("biology", "computer science", "economics", "history", "mathematics", "physics")
BLOCK = 10_000
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
ACCENTED = "éüñ−²αβ→"


def text_pool(rng: np.random.Generator, characters: int = POOL_CHARACTERS) -> str:
    """One long text of made-up words, frequent ones short, of which turns are cut."""
    lengths = 2 + rng.poisson(1 + np.log1p(np.arange(20_000)) / 2)
    letters = np.array(list(LETTERS))[np.minimum(rng.exponential(6, (len(lengths), lengths.max())).astype(int), 25)]
    words = ["".join(row[:length]) for row, length in zip(letters, lengths, strict=True)]
    for at, place in enumerate(rng.choice(len(words), len(words) // 100, replace=False)):
        words[place] += ACCENTED[at % len(ACCENTED)]
    ranks = np.minimum(rng.zipf(1.3, characters // 6), len(words)) - 1
    return " ".join([words[rank] for rank in ranks])


def conversations(count: int, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Yield conversations in EduFeedback's layout; equal seeds, equal conversations, whatever their number."""
    rng = np.random.default_rng(seed)
    pool = text_pool(rng)
    for start in range(0, count, BLOCK):
        turns = rng.integers(TURNS[0], TURNS[1], BLOCK, endpoint=True)
        sizes = rng.integers(LENGTHS[0], LENGTHS[1], (BLOCK, TURNS[1]), endpoint=True).tolist()
        places = rng.integers(0, len(pool) - LENGTHS[1], (BLOCK, TURNS[1])).tolist()
        for row in range(min(BLOCK, count - start)):
            number = start + row
            cuts = list(zip(places[row], sizes[row], strict=True))[: turns[row]]
            yield {
                "id": f"conversation-{number:07d}",
                "field": FIELDS[number % len(FIELDS)],
                "utterances": [[f"agent{2 - at % 2}", pool[i : i + n].strip()] for at, (i, n) in enumerate(cuts)],
            }


def write_conversations(path: Path, count: int) -> None:
    """Write the input; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as out:
        for conversation in conversations(count):
            out.write(orjson.dumps(conversation, option=orjson.OPT_APPEND_NEWLINE))
    temporary.rename(path)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(conversations: Path, store: Path) -> dict[str, Any]:
    """Run both stages in this process."""
    from coala_core.config import SplitConfig, TripletsConfig
    from coala_core.stages import split, triplets
    from coala_core.storage import Store

    config = TripletsConfig(conversations=str(conversations))
    imported = peak_mib()
    triplets_seconds, made = timed(lambda: triplets.run(Store(store), config))
    triplets_peak = peak_mib()
    split_seconds, divided = timed(lambda: split.run(Store(store), SplitConfig(), made))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "imports_mib": imported,
        "triplets_peak_mib": triplets_peak,
        "peak_mib": peak_mib(),
        "processor_seconds": used.ru_utime + used.ru_stime,
        "triplets_seconds": triplets_seconds,
        "split_seconds": split_seconds,
        "conversations": made.report["conversations"],
        "triplets": made.report["triplets"],
        "rows_rejected": made.report["rows_rejected"],
        "pairs": divided.report["pairs"],
        "triplets_file": str(made.path / "triplets.parquet"),
        "bytes_written": sum(path.stat().st_size for folder in (made.path, divided.path) for path in folder.iterdir()),
    }


def floors(conversations: Path, triplets: Path, scratch: Path) -> dict[str, float]:
    """Seconds of what no program can leave out: SHA-256 of the input, its JSON, and the compressed output."""

    def parse() -> None:
        with conversations.open("rb", buffering=1 << 20) as lines:
            for line in lines:
                orjson.loads(line)

    hashing, _ = timed(lambda: hashlib.file_digest(conversations.open("rb"), "sha256"))
    parsing, _ = timed(parse)
    writing = 0.0
    with pq.ParquetFile(triplets) as source, pq.ParquetWriter(scratch, source.schema_arrow, compression="zstd") as out:
        for index in range(source.num_row_groups):
            group = source.read_row_group(index)
            writing += timed(lambda group=group: out.write_table(group))[0]
    scratch.unlink()
    return {"hashing_seconds": hashing, "parsing_seconds": parsing, "writing_seconds": writing}


def run(count: int, folder: Path) -> dict[str, Any]:
    """Make the input if it is absent, run the stages in a fresh process, and measure the floors beside them."""
    source = folder / f"conversations-{count}-seed-{SEED}.jsonl"
    if not source.exists():
        write_conversations(source, count)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        command = [sys.executable, "-m", "tests.bench.data", "--measure", str(source), scratch]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        row |= floors(source, Path(row.pop("triplets_file")), Path(scratch) / "floor.parquet")
    seconds = row["triplets_seconds"] + row["split_seconds"]
    floor = sum(row[name] for name in ("hashing_seconds", "parsing_seconds", "writing_seconds"))
    return row | {
        "seconds": seconds,
        "conversations_per_second": count / seconds,
        "input_bytes": source.stat().st_size,
        "input_mb_per_second": source.stat().st_size / 1e6 / seconds,
        "share_of_bound": floor / seconds,
        "input_sha256": hashlib.file_digest(source.open("rb"), "sha256").hexdigest(),
    }


def show(row: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{row['conversations']:,} conversations, {row['input_bytes'] / 1e6:,.0f} MB of JSON lines")
    table.add_column("what")
    table.add_column("measured", justify="right")
    cells = {
        "conversations/s": f"{row['conversations_per_second']:,.0f}",
        "MB/s of input": f"{row['input_mb_per_second']:.1f}",
        "peak memory": f"{row['peak_mib']:,.0f} MiB ({row['imports_mib']:,.0f} after imports)",
        "triplets": f"{row['triplets']:,} in {row['triplets_seconds']:.1f} s",
        "split": f"{row['split_seconds']:.1f} s",
        "processor time": f"{row['processor_seconds']:.1f} s in {row['seconds']:.1f} s",
        "written": f"{row['bytes_written'] / 1e6:,.0f} MB",
        "bound: SHA-256 of the input": f"{row['hashing_seconds']:.1f} s",
        "bound: orjson on every line": f"{row['parsing_seconds']:.1f} s",
        "bound: Parquet and zstd": f"{row['writing_seconds']:.1f} s",
        "bound, share of all seconds": f"{row['share_of_bound']:.0%}",
    }
    for what, value in cells.items():
        table.add_row(what, value)
    Console(width=100).print(table)


def main() -> int:
    """Run the benchmark, or one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("FILE", "STORE"))
    given = parser.parse_args()
    if given.measure:
        sys.stdout.write(json.dumps(measure(*given.measure)) + "\n")
        return 0
    cores = len(os.sched_getaffinity(0))
    machine = {
        "processor": processor(),
        "cores": cores,
        "load_before": os.getloadavg()[0],
    }
    row = run(given.conversations, given.folder)
    if given.conversations == CONVERSATIONS:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps({"machine": machine, **row}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    show(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
