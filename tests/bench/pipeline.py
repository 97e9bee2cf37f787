"""Measure the whole pipeline on book2dial: accuracy over three split seeds, and where the time goes.

Run by `make bench-pipeline`; needs ../shared/data/book2dial beside the project.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from coala_core.embed.shard_worker import describe_performance
from flows.cli import quiet_environment
from tests.bench.processor import processor

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT.parent / "shared" / "data" / "book2dial"
RESULT = ROOT / "data" / "bench" / "pipeline.json"
FIELDS = ("business", "math", "science", "social")
PER_FIELD = 70
SEEDS = (0, 1, 2)


def write_conversations(target: Path) -> None:
    """Write the first conversations of each field into one file."""
    with target.open("w", encoding="utf-8") as out:
        for field in FIELDS:
            with gzip.open(SOURCE / f"{field}.jsonl.gz", "rt", encoding="utf-8") as lines:
                out.writelines(line for _, line in zip(range(PER_FIELD), lines, strict=False))


def run_seed(conversations: Path, store: Path, seed: int) -> dict[str, Any]:
    """Run the flow with default settings and one split seed."""
    from coala_core.config import PipelineConfig, SplitConfig, TripletsConfig
    from flows.pipeline import coala_pipeline

    config = PipelineConfig(
        store=str(store),
        triplets=TripletsConfig(conversations=str(conversations), group_by="title"),
        split=SplitConfig(seed=seed),
    )
    started = time.perf_counter()
    stages = coala_pipeline(config).stages
    seconds = time.perf_counter() - started
    solve, evaluate, embed = (stages[name].report for name in ("solve", "evaluate", "embed"))
    return {
        "seed": seed,
        "accuracy": evaluate["head"]["accuracy"],
        "wilson": evaluate["head"]["wilson"],
        "group_bootstrap": evaluate["head"]["group_bootstrap"],
        "test_pairs": evaluate["head"]["pairs"],
        "ties": evaluate["head"]["ties"],
        "baselines": {name: baseline["accuracy"] for name, baseline in evaluate["baselines"].items()},
        "lasso_weight": solve["lasso_weight"],
        "share": solve["share"],
        "gap": solve["gap"],
        "cone_violation": solve["cone_violation"],
        "total_sweeps": solve["total_sweeps"],
        "unconverged": len(solve["unconverged"]),
        "tokens": embed["tokens"],
        "embedding": stages["embed"].performance,
        "seconds": seconds,
        "stage_seconds": {name: stage.seconds for name, stage in stages.items()},
        "reused": [name for name, stage in stages.items() if stage.reused],
    }


def show(rows: list[dict[str, Any]], mean: float) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"book2dial, {PER_FIELD} conversations of each field, split by title, default settings")
    for name in ("seed", "accuracy", "interval", "linear probe", "Phase I", "gap", "seconds", "reused"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row["wilson"]
        rivals = [f"{row['baselines'][name]:.3f}" for name in ("linear_probe", "phase_one_head")]
        cells = [f"{row['accuracy']:.3f}", f"{low:.3f} to {high:.3f}", *rivals, f"{abs(row['gap']):.1e}"]
        table.add_row(str(row["seed"]), *cells, f"{row['seconds']:.0f}", ", ".join(row["reused"]) or "nothing")
    console = Console(width=120)
    console.print(table)
    console.print(f"mean accuracy {mean:.4f}")
    console.print(f"embed, first seed: {describe_performance(rows[0]['embedding'])}")


def main() -> int:
    """Run the benchmark."""
    if not SOURCE.is_dir():
        sys.stderr.write(f"`make bench-pipeline` needs {SOURCE}, which is absent; nothing was measured\n")
        return 1
    quiet_environment()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    scratch = ROOT / "data" / "store"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bench-") as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        conversations = Path(folder) / "book2dial-280.jsonl"
        write_conversations(conversations)
        rows = [run_seed(conversations, Path(folder) / "store", seed) for seed in SEEDS]
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    machine = {"processor": processor(), "cores": os.cpu_count()}
    content = {"mean_accuracy": mean, "machine": machine, "seeds": rows}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    show(rows, mean)
    return 0


if __name__ == "__main__":
    sys.exit(main())
