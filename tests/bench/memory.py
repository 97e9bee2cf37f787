"""Peak memory of the stage ``embed`` over many short pairs: `python -m tests.bench.memory ROWS FOLDER`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import EmbedConfig
from coala_core.stages import embed
from coala_core.storage import Store
from tests.tiny_models import save_tiny_model

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_SCHEMA = pa.schema(
    [("pair_id", pa.string()), *((name, pa.list_(_MESSAGE)) for name in ("prompt", "chosen", "rejected"))]
)
_BLOCK = 4096


def write_pairs(path: Path, rows: int) -> None:
    """Write pairs of different texts, block by block."""
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, _BLOCK):
            numbers = range(start, min(rows, start + _BLOCK))
            content = [
                {
                    "pair_id": f"pair-{number}",
                    "prompt": [{"role": "user", "content": f"What is {number} plus {number % 97}?"}],
                    "chosen": [{"role": "assistant", "content": f"It is {number + number % 97}."}],
                    "rejected": [{"role": "assistant", "content": f"Let us talk about {number % 13} first."}],
                }
                for number in numbers
            ]
            writer.write_table(pa.Table.from_pylist(content, schema=_SCHEMA))


def peak_mib() -> float:
    """Peak resident memory of this program; the figure of `getrusage` would be the parent's where that had more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> int:
    """Embed the pairs and print peak memory and seconds as one line of JSON."""
    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    store = Store(folder / "store")
    model = save_tiny_model(folder / "model", "llama")
    workspace = store.workspace("triplets", "made")
    write_pairs(workspace.path / "triplets.parquet", rows)
    workspace.report = {"texts_sha256": f"{rows} sums"}
    made = store.seal(workspace, "triplets", "made", {}, {}, 0.0)
    started = time.perf_counter()
    artifact = embed.run(store, EmbedConfig(model=str(model), device="cpu", dtype="float32"), made)
    seconds = time.perf_counter() - started
    peak = peak_mib()
    summary = {"peak_mib": peak, "seconds": seconds, "shards": artifact.report["shards"], "pairs": rows}
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
