"""Measure embedding on a CUDA device at the size of Llama-3.1-8B, with random weights in bfloat16."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, LlamaConfig

from coala_core.embed.language_model import LanguageModel
from coala_core.embed.prefix_tree import pack_batches
from coala_core.embed.shard_worker import matmul_rate

LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
)
PAIRS = 4
"""Pairs of a conversation."""


def conversation(tokens: int, vocabulary: int, rng: np.random.Generator) -> list[list[int]]:
    """Token sequences of one conversation whose prefix tree has so many tokens: a trunk, and a branch a pair."""
    turn = tokens // (3 * PAIRS)  # a question and a reply on the trunk, and the later reply as a branch
    trunk = rng.integers(0, vocabulary, tokens - PAIRS * turn).tolist()
    branches = rng.integers(0, vocabulary, (PAIRS, turn)).tolist()
    starts = [(2 * pair + 1) * turn for pair in range(PAIRS)]
    return [
        sequence
        for start, branch in zip(starts, branches, strict=True)
        for sequence in (trunk[: start + turn], trunk[:start] + branch)
    ]


def measure(
    config: LlamaConfig, device: str, conversations: int = 64, tokens: int = 1000, budget: int = 16_384
) -> dict[str, Any]:
    """Run conversations of so many distinct tokens through all layers of a random model.

    Parameters
    ----------
    config : LlamaConfig
        Shapes.
    device : str
        "cuda", or "cpu" to try the benchmark itself.
    conversations, tokens : int
        How many, and distinct tokens in each.
    budget : int
        Tokens in one forward pass.

    Returns
    -------
    dict
        Tokens per second, FLOP/s, and their share of the matrix-multiply rate measured on the device.
    """
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=torch.bfloat16).eval()
    language_model = LanguageModel(model, None, (config.num_hidden_layers,), config.num_hidden_layers)
    rng = np.random.default_rng(0)
    rows = [row for _ in range(conversations) for row in conversation(tokens, config.vocab_size, rng)]
    batches = pack_batches(rows, budget)
    computed = sum(len(batch.token_ids) for batch in batches)
    flops = language_model.flops(computed, sum(batch.attended for batch in batches))
    with torch.inference_mode():
        language_model.packed_states(batches[0])
        _wait(device)
        started = time.perf_counter()
        for batch in batches:
            language_model.packed_states(batch)
        _wait(device)
        seconds = time.perf_counter() - started
    peak = matmul_rate(language_model)
    return {
        "conversations": conversations,
        "computed_tokens": computed,
        "row_tokens": sum(map(len, rows)),
        "tokens_per_s": computed / seconds,
        "flops_per_s": flops / seconds,
        "matmul_flops_per_s": peak,
        "model_flop_utilisation": flops / seconds / peak,
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
