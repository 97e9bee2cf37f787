"""Measure embedding: tokens computed, speed against a plain loop and against the bare model, growth, and memory.

Run by `make bench-embed`; needs ../shared/data beside the project. All ratios are of times taken in turn in one
run, so that a busy machine slows both sides.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coala_core.config import EmbedConfig, TripletsConfig
from coala_core.embed.batching import similar_lengths
from coala_core.embed.embed_pairs import TextPair, Work, embed_pairs
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.model_source import locate_model, materialise
from coala_core.embed.prefix_tree import SortedSequences, pack_batches
from coala_core.embed.rendering import Renderer
from coala_core.embed.shard_worker import matmul_rate, text_pairs
from coala_core.embed.shards import TextReader, plan_shards, scan_texts
from coala_core.stages import embed, triplets
from coala_core.storage import Store
from flows.cli import quiet_environment
from tests.bench.embed_gpu import LLAMA_8B
from tests.bench.embed_gpu import measure as measure_device
from tests.bench.pipeline import SOURCE as BOOK2DIAL
from tests.bench.pipeline import write_conversations
from tests.bench.processor import processor
from tests.bench.strategies import compare

ROOT = Path(__file__).resolve().parents[2]
ULTRAFEEDBACK = ROOT.parent / "shared" / "data" / "ultrafeedback_subset"
RESULT = ROOT / "data" / "bench" / "embed.json"
TIMED = {"book2dial": 512, "UltraFeedback": 96}
"""Pairs that are run; the tokens of all are counted."""
TIMED_IN_FLOAT32 = 64
COMPARED = 8
"""Conversations on which the ways to share prefixes are compared."""
GROWING = 280
"""Conversations of the run to which some are added."""
MEMORY_ROWS = (10_000, 100_000)
"""Rows of the runs whose memory is compared."""
NEW_SHARE = 10
"""One conversation in so many is added later."""


def write_ultrafeedback(target: Path) -> None:
    """Write both files of the subset into one."""
    with target.open("w", encoding="utf-8") as out:
        for name in ("train_clean", "eval_clean"):
            with gzip.open(ULTRAFEEDBACK / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
                out.writelines(lines)


def shards_of(conversations: Path, store: Store, config: EmbedConfig) -> list[list[TextPair]]:
    """Pairs of a file, divided as the stage divides them."""
    artifact = triplets.run(store, TripletsConfig(conversations=str(conversations)))
    path = artifact.path / "triplets.parquet"
    texts = scan_texts(path)
    planned = plan_shards(texts, set(texts.keys), "", [], config.shard_rows)
    reader = TextReader(path)
    return [text_pairs(reader.take(shard.rows)) for shard in planned]


class PlainLoop:
    """The same rows without sharing: sorted by length over the whole file, batched, and pooled.

    Parameters
    ----------
    model : LanguageModel
        Runs the rows.
    config : EmbedConfig
        Window and token budget.
    pairs : sequence of TextPair
        All pairs; they are rendered when their batch is run.
    """

    def __init__(self, model: LanguageModel, config: EmbedConfig, pairs: Sequence[TextPair]) -> None:
        self.model = model
        self.renderer = Renderer(model.tokenizer, config.max_tokens, model.vocabulary)
        self.pairs = pairs
        self.lengths = [len(sequence.token_ids) for pair in pairs for sequence in self._sequences(pair)]
        self.batches = list(similar_lengths(self.lengths, config.batch_tokens))

    def _sequences(self, pair: TextPair) -> tuple[Any, ...]:
        return self.renderer.render_pair(pair.prompt, pair.chosen, pair.rejected)

    def run(self, batches: Sequence[Sequence[int]]) -> int:
        """Embed some batches; return the tokens computed, padding excluded."""
        with torch.inference_mode():
            for rows in batches:
                sequences = [self.renderer.render(*self._row(row)) for row in rows]
                longest = max(len(sequence.token_ids) for sequence in sequences)
                ids = torch.zeros((len(rows), longest), dtype=torch.int64)
                for row, sequence in enumerate(sequences):
                    ids[row, : len(sequence.token_ids)] = torch.tensor(sequence.token_ids)
                states = self.model.hidden_states(ids)[0]
                for row, sequence in enumerate(sequences):
                    states[row, sequence.response_start : len(sequence.token_ids)].float().mean(0)
        return sum(self.lengths[row] for rows in batches for row in rows)

    def _row(self, row: int) -> tuple[Any, str]:
        pair = self.pairs[row // 2]
        return pair.prompt, pair.rejected if row % 2 else pair.chosen


def bare(model: LanguageModel, tokens: int, work: Work) -> float:
    """Seconds that the model alone takes for so many tokens in full batches of equal length, without padding.

    Rows are so long that a token sees as many others, on average, as in the work compared with.
    """
    blocks = 2 * sum(p.numel() for p in model.model.layers.parameters() if p.dim() > 1)
    attention = model.flops(0, 1)
    seen = (work.flops - blocks * work.computed_tokens) / attention / work.computed_tokens
    length = max(1, round(2 * seen) - 1)
    rows = max(1, round(tokens / length))
    ids = torch.randint(0, model.vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        started = time.perf_counter()
        model.hidden_states(ids)
        return (time.perf_counter() - started) * tokens / (rows * length)


def measure(
    name: str, shards: list[list[TextPair]], model: LanguageModel, config: EmbedConfig, pairs: int
) -> dict[str, Any]:
    """Count the tokens of all shards; run so many pairs with and without sharing and the bare model, in turn."""
    renderer = Renderer(model.tokenizer, config.max_tokens, model.vocabulary)
    rendered = [
        [s.token_ids for p in shard for s in renderer.render_pair(p.prompt, p.chosen, p.rejected)] for shard in shards
    ]
    computed = sum(len(batch.token_ids) for rows in rendered for batch in pack_batches(rows, config.batch_tokens))
    distinct = SortedSequences([row for rows in rendered for row in rows]).distinct
    timed = [shard[:pairs] for shard in shards[: -(-pairs // config.shard_rows)]]
    plain = PlainLoop(model, config, [pair for shard in timed for pair in shard])
    work, seconds, plain_tokens = Work(), {"shared": 0.0, "plain": 0.0, "bare": 0.0}, 0
    for index, shard in enumerate(timed):
        started = time.perf_counter()
        done = embed_pairs(shard, model, config).work
        seconds["shared"] += time.perf_counter() - started
        work.add(done)
        for _ in range(done.batches):
            seconds["bare"] += bare(model, round(done.computed_tokens / done.batches), done)
        started = time.perf_counter()
        plain_tokens += plain.run(plain.batches[index :: len(timed)])
        seconds["plain"] += time.perf_counter() - started
    rates = {
        "tokens_per_s": work.computed_tokens / seconds["shared"],
        "plain_loop_tokens_per_s": plain_tokens / seconds["plain"],
        "bare_model_tokens_per_s": work.computed_tokens / seconds["bare"],
    }
    return {
        "data": name,
        "pairs": sum(map(len, shards)),
        "pairs_timed": sum(map(len, timed)),
        "dtype": config.dtype,
        "row_tokens": sum(len(row) for rows in rendered for row in rows),
        "distinct_tokens": distinct,
        "computed_tokens": computed,
        "computed_over_distinct": computed / distinct,
        **rates,
        "seconds": seconds,
        "faster_than_plain_loop": seconds["plain"] / seconds["shared"],
        "share_of_bare_model": rates["tokens_per_s"] / rates["bare_model_tokens_per_s"],
        "padding": work.padding,
        "flops_per_s": work.flops / seconds["shared"],
        "matmul_flops_per_s": matmul_rate(model),
    }


def measure_growth(conversations: Path, folder: Path, model: Path, dtype: str) -> dict[str, Any]:
    """Cost of adding conversations, spread over the file, to a finished run, against a run of all from nothing."""
    lines = conversations.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = lines[:: len(lines) // GROWING]
    before, after = folder / "before.jsonl", folder / "after.jsonl"
    after.write_text("".join(lines), encoding="utf-8")
    before.write_text("".join(line for row, line in enumerate(lines) if row % NEW_SHARE), encoding="utf-8")
    config = EmbedConfig(model=str(model), dtype=dtype)
    seconds, tokens = {}, {}
    for name, path, store in (
        ("before", before, "growing"),
        ("added", after, "growing"),
        ("full", after, "fresh"),
    ):
        shelf = Store(folder / store)
        artifact = triplets.run(shelf, TripletsConfig(conversations=str(path)))
        started = time.perf_counter()
        made = embed.run(shelf, config, artifact)
        seconds[name] = time.perf_counter() - started
        tokens[name] = made.timing["performance"]["computed_tokens"]
    return {
        "conversations": len(lines),
        "added": len(lines) - sum(1 for row in range(len(lines)) if row % NEW_SHARE),
        "seconds": seconds,
        "computed_tokens": tokens,
        "seconds_share": seconds["added"] / seconds["full"],
        "tokens_share": tokens["added"] / tokens["full"],
    }


def measure_memory(folder: Path) -> dict[str, Any]:
    """Peak memory of the stage in a process of its own, for ten times the rows, with a tiny model."""
    peaks = {}
    for rows in MEMORY_ROWS:
        command = [sys.executable, "-m", "tests.bench.memory", str(rows), str(folder / f"memory-{rows}")]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks[str(rows)] = json.loads(out.stdout.splitlines()[-1])
    return peaks


def show(content: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"embedding, {content['machine']['cores']} cores, SmolLM2-135M-Instruct, layer 20 of 30")
    names = ("data", "dtype", "pairs", "pairs_timed", "row_tokens", "distinct_tokens", "computed_tokens")
    names += ("computed_over_distinct", "tokens_per_s", "plain_loop_tokens_per_s", "bare_model_tokens_per_s")
    names += ("faster_than_plain_loop", "share_of_bare_model")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for row in content["data"]:
        cells = [
            f"{row[name]:,.3f}" if isinstance(row[name], float) and row[name] < 100 else row[name] for name in names
        ]
        table.add_row(*(f"{cell:,.0f}" if isinstance(cell, int | float) else cell for cell in cells))
    console = Console(width=150)
    console.print(table)
    for key in ("strategies", "growth", "memory"):
        console.print(key, content[key])
    console.print("Llama-3.1-8B on CUDA", content["llama_8b_on_cuda"] or "not measured, there is no CUDA device")


def main() -> int:
    """Run the benchmark."""
    if not (BOOK2DIAL.is_dir() and ULTRAFEEDBACK.is_dir()):
        sys.stderr.write(f"`make bench-embed` needs {BOOK2DIAL} and {ULTRAFEEDBACK}; nothing was measured\n")
        return 1
    quiet_environment()
    scratch = ROOT / "data" / "store"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bench-") as name:
        folder = Path(name)
        store = Store(folder / "store")
        directory = materialise(locate_model(EmbedConfig(), Store(scratch)), Store(scratch))
        conversations, preferences = folder / "book2dial-280.jsonl", folder / "ultrafeedback-1200.jsonl"
        write_conversations(conversations)
        write_ultrafeedback(preferences)
        rows, strategies = [], {}
        for dtype in dict.fromkeys((embed.resolve_settings(directory, EmbedConfig()).dtype, "float32")):
            config = embed.resolve_settings(directory, EmbedConfig(dtype=dtype))
            model = load_language_model(directory, config)
            first = not rows
            for label, path in (("book2dial", conversations), ("UltraFeedback", preferences)):
                if first or label == "book2dial":
                    pairs = TIMED[label] if first else TIMED_IN_FLOAT32
                    rows.append(measure(label, shards_of(path, store, config), model, config, pairs))
            strategies[dtype] = compare(model, sample(conversations, store, model, config))
            del model
        growth = measure_growth(conversations, folder, directory, rows[0]["dtype"])
        memory = measure_memory(folder)
    device = measure_device(LLAMA_8B, "cuda") if torch.cuda.is_available() else None
    machine = {"processor": processor(), "cores": os.cpu_count()}
    content = {
        **{key: rows[0][key] for key in ("computed_tokens", "distinct_tokens", "tokens_per_s")},
        **{key: rows[0][key] for key in ("plain_loop_tokens_per_s", "bare_model_tokens_per_s")},
        "peak_mib": memory[str(MEMORY_ROWS[-1])]["peak_mib"],
        "data": rows,
        "strategies": strategies,
        "growth": growth,
        "memory": memory,
        "llama_8b_on_cuda": device,
        "machine": machine,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    show(content)
    return 0


def sample(conversations: Path, store: Store, model: LanguageModel, config: EmbedConfig) -> list[list[Any]]:
    """Token sequences of some conversations, one list each."""
    renderer = Renderer(model.tokenizer, config.max_tokens, model.vocabulary)
    found: dict[str, list[Any]] = {}
    for shard in shards_of(conversations, store, config):
        for pair in shard:
            sequences = renderer.render_pair(pair.prompt, pair.chosen, pair.rejected)
            found.setdefault(pair.pair_id.rpartition("#")[0], []).extend(s.token_ids for s in sequences)
    names = sorted(found)
    chosen = np.random.default_rng(0).choice(len(names), COMPARED, replace=False)
    return [found[names[index]] for index in chosen]


if __name__ == "__main__":
    sys.exit(main())
