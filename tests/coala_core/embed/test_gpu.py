"""Embedding on a CUDA device: the attention kernels differ from the CPU's, the features must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coala_core.config import EmbedConfig
from coala_core.embed.embed_pairs import embed_pairs
from coala_core.embed.language_model import load_language_model
from tests.bench.embed_gpu import LLAMA_8B, measure
from tests.plain_forward import PAIRS, check_features
from tests.tiny_models import ARCHITECTURES

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_on_the_device_equal_a_plain_forward_pass(tiny_models: dict[str, Path], architecture: str) -> None:
    folder = tiny_models[architecture]
    config = EmbedConfig(device="cuda", dtype="float32", layers=(1, 3), poolings=("mean", "last"), max_tokens=512)
    model = load_language_model(folder, config)
    assert model.unshared is None
    check_features(embed_pairs(PAIRS, model, config), folder, (1, 3))


def test_the_benchmark_of_the_device_counts_its_tokens() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 1000}
    small = LLAMA_8B.from_dict(
        {**LLAMA_8B.to_dict(), **sizes, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    )
    found = measure(small, "cpu", conversations=3, tokens=120, budget=500)
    # Four pairs of turns of 10 tokens: rows of 20, 40, 60, 80 tokens and branches of the same lengths.
    assert (found["row_tokens"], found["computed_tokens"]) == (3 * 2 * (20 + 40 + 60 + 80), 3 * 120)
    assert found["tokens_per_s"] > 0 < found["model_flop_utilisation"]
