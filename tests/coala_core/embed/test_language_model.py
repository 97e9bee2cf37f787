"""The language model: loaded, cut, and refused in plain words."""

from __future__ import annotations

import io
import logging as python_logging
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from coala_core.config import EmbedConfig
from coala_core.embed import tree_attention
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.prefix_tree import pack_batches
from tests.tiny_models import ARCHITECTURES, DEPTH


def cpu(*layers: int, **change: Any) -> EmbedConfig:
    return EmbedConfig(device="cpu", **{"dtype": "float32", "layers": layers, **change})


@pytest.fixture
def folder(tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    """A copy of the Qwen3-type model that a test may change."""
    return Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))


def test_a_layer_beyond_the_depth_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"`embed\.layers` must be at most the depth {DEPTH} .*, got {DEPTH + 1}"):
        load_language_model(folder, cpu(1, DEPTH + 1))


def test_more_tokens_than_positions_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"`embed\.max_tokens` must be at most the model's 4096 positions, got 4097"):
        load_language_model(folder, cpu(1, max_tokens=4097))
    assert load_language_model(folder, cpu(max_tokens=4096)).layers == (3,), "two thirds of 4 blocks, rounded"


def test_missing_weights_are_refused_instead_of_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold all weights, got none for 1 tensors, first layers\.0\.mlp\.up_pr"):
        load_language_model(folder, cpu(1))


def test_a_model_whose_tokens_see_later_ones_is_refused(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    encoder = BertModel(BertConfig(vocab_size=400, max_position_embeddings=4096, **sizes))
    for weights in encoder.parameters():
        weights.data *= 5  # trained weights are not as small as fresh ones
    encoder.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"must be a causal language model, got BertModel, whose earlier states"):
        load_language_model(folder, cpu(2))


def test_loading_prints_nothing_and_leaves_transformers_logging_as_it_was(
    tiny_models: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    records = io.StringIO()
    handler = python_logging.StreamHandler(records)
    logging.add_handler(handler)
    try:
        load_language_model(tiny_models["llama"], cpu(1))
    finally:
        logging.remove_handler(handler)
    assert capfd.readouterr() == ("", "")
    assert records.getvalue() == "", "not even that the head, which nobody asked for, is unused"
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layers", [(1,), (2, 1), (1, DEPTH, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_only_the_layers_that_are_needed_run_and_each_once(
    tiny_models: dict[str, Path], architecture: str, layers: tuple[int, ...], shared: bool
) -> None:
    model = load_language_model(tiny_models[architecture], cpu(*layers))
    block = {"llama": "LlamaDecoderLayer", "gpt2": "GPT2Block", "qwen3": "Qwen3DecoderLayer"}[architecture]
    calls: Counter[str] = Counter()

    def count(called: torch.nn.Module, _inputs: Any) -> None:
        calls[type(called).__name__] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        if shared:
            states = model.packed_states(pack_batches([(5, 6, 7), (5, 6)], 100)[0])
        else:
            states = model.hidden_states(torch.tensor([[5, 6, 7]]))
    finally:
        handle.remove()
    assert calls[block] == max(layers)
    assert [state.shape for state in states] == [(3, model.hidden_size) if shared else (1, 3, model.hidden_size)] * len(
        layers
    )
    assert (model.layers, model.depth) == (layers, DEPTH)
    heads = [m for m in model.model.modules() if getattr(m, "out_features", 0) == model.vocabulary]
    assert heads == [], "the language-model head must not be there"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_come_in_the_order_asked_for(tiny_models: dict[str, Path], architecture: str) -> None:
    from transformers import AutoModel

    model = load_language_model(tiny_models[architecture], cpu(3, DEPTH, 1))
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tiny_models[architecture])(ids, output_hidden_states=True).hidden_states
        for states, layer in zip(model.hidden_states(ids), (3, DEPTH, 1), strict=True):
            torch.testing.assert_close(states, expected[layer], rtol=1e-5, atol=1e-5)


def test_the_attention_is_changed_for_packed_rows_and_back(tiny_models: dict[str, Path]) -> None:
    model = load_language_model(tiny_models["llama"], cpu(2))
    (batch,) = pack_batches([(5, 6, 7), (5, 6, 8, 9), (4,)], 100)
    ids = torch.tensor([[5, 6, 8, 9]])
    with torch.no_grad():
        first = model.hidden_states(ids)[0]
        own = model.model.config._attn_implementation
        packed = model.packed_states(batch)[0]
        assert model.model.config._attn_implementation == tree_attention.NAME != own
        assert torch.equal(model.hidden_states(ids)[0], first)
        assert torch.equal(model.packed_states(batch)[0], packed)


def test_dropout_is_off_and_precision_is_as_asked(tiny_models: dict[str, Path]) -> None:
    model = load_language_model(tiny_models["gpt2"], cpu(2))
    ids = torch.arange(10)[None]
    (first,) = model.hidden_states(ids)
    assert torch.equal(first, model.hidden_states(ids)[0])
    assert first.dtype == torch.float32
    half = load_language_model(tiny_models["gpt2"], cpu(2, dtype="bfloat16"))
    (states,) = half.hidden_states(ids)
    assert states.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits, so a relative error of some per cent is expected and an equal result would be wrong.
    error = float(((states.float() - first).norm() / first.norm()).detach())
    assert 1e-4 < error < 0.1


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    own: Any = torch.nn.Linear(2, 2)
    own.config = SimpleNamespace(_attn_implementation="sdpa")
    with pytest.raises(ValueError, match=r"must be a decoder with a list of 3 blocks, got Linear; choose a causal"):
        LanguageModel(own, None, (1,), 3)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize(("layer", "tokens"), [(1, 7), (3, 7), (DEPTH, 24)])
def test_flops_equal_torch_s_count_of_the_weights_and_the_causal_half_of_its_attention(
    tiny_models: dict[str, Path], architecture: str, layer: int, tokens: int
) -> None:
    """Torch counts attention over all pairs of tokens; a decoder sees each earlier token and itself.

    With T tokens, torch's attention is 4 L w T^2 and ours 4 L w T (T + 1) / 2, where w = heads times their width.
    Weights must agree exactly. Neither counts norms, biases, rotations or activations.
    """
    model = load_language_model(tiny_models[architecture], cpu(layer))
    model.model.set_attn_implementation("eager")  # torch counts its two matrix products one by one
    ids = torch.arange(tokens)[None]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.model(input_ids=ids, use_cache=False)
    weights = attention = 0
    for name, counts in counter.get_flop_counts().items():
        if name.startswith(type(model.model).__name__ + ".layers.") and name.count(".") == 2:
            for operation, flops in counts.items():
                weights += flops * (str(operation) in ("aten.mm", "aten.addmm"))
                attention += flops * (str(operation) == "aten.bmm")
    width = 4 * {"llama": 8, "qwen3": 16}[architecture]
    assert attention == 4 * layer * width * tokens**2
    assert weights > 0
    assert model.flops(tokens, tokens * (tokens + 1) // 2) == weights + attention * (tokens + 1) // (2 * tokens)


def test_flops_by_hand(tiny_models: dict[str, Path]) -> None:
    one, two = (load_language_model(tiny_models["gpt2"], cpu(1, *more)) for more in ((), (2,)))
    # GPT-2 block, h = 24: 3 h^2 + h^2 + 4 h^2 + 4 h^2 = 12 h^2 = 6912 weights; a pair of tokens takes 4 h = 96.
    assert one.flops(1, 1) == 2 * 6912 + 96
    assert one.flops(5, 0) == 5 * 2 * 6912
    assert one.flops(5, 9) == 5 * 2 * 6912 + 9 * 96
    assert two.flops(5, 9) == 2 * one.flops(5, 9), "two layers are read, and the higher one counts"


def test_importing_the_module_loads_neither_torch_nor_transformers() -> None:
    import subprocess

    code = (
        "import sys, coala_core.embed.language_model as m; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split() == ["False", "False"]
