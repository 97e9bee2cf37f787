"""The language model: loaded, cut, and refused in plain words."""

from __future__ import annotations

import io
import json
import logging as python_logging
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from coala_core.config import EmbedConfig
from coala_core.language_model import (
    LanguageModel,
    choose_device,
    default_layer,
    load_language_model,
    read_depth,
    resolve_settings,
)
from tests.tiny_models import ARCHITECTURES, DEPTH

CPU = EmbedConfig(device="cpu")


def test_settings_that_depend_on_the_model_are_filled_in(folder: Path) -> None:
    filled = resolve_settings(folder, EmbedConfig(max_tokens=9999))
    assert (filled.layer, filled.max_tokens) == (3, 4096)  # two thirds of 4 blocks is 2.67; 4096 positions
    kept = resolve_settings(folder, EmbedConfig(layer=1, max_tokens=64))
    assert (kept.layer, kept.max_tokens) == (1, 64)


@pytest.fixture
def folder(tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    """A copy of the Qwen3-type model that a test may change."""
    return Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "not-a-model"}'])
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"must be a model that transformers knows without remote code, got: "):
        read_depth(tmp_path)


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    proof = folder / "was_run"
    (folder / "own.py").write_text(f"open({str(proof)!r}, 'w').close()\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="without remote code"):
        read_depth(folder)
    assert not proof.exists()


def test_a_layer_beyond_the_depth_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"`embed\.layer` must be at most the depth {DEPTH} .*, got {DEPTH + 1}"):
        load_language_model(folder, CPU, DEPTH + 1)


def test_more_tokens_than_positions_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"`embed\.max_tokens` must be at most the model's 4096 positions, got 4097"):
        load_language_model(folder, EmbedConfig(device="cpu", max_tokens=4097), 1)
    assert load_language_model(folder, EmbedConfig(device="cpu", max_tokens=4096), 1).layer == 1


def test_missing_weights_are_refused_instead_of_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold all weights, got none for 1 tensors, first layers\.0\.mlp\.up_pr"):
        load_language_model(folder, CPU, 1)


def test_a_model_whose_tokens_see_later_ones_is_refused(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    encoder = BertModel(BertConfig(vocab_size=400, max_position_embeddings=4096, **sizes))
    for weights in encoder.parameters():
        weights.data *= 5  # trained weights are not as small as fresh ones
    encoder.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"must be a causal language model, got BertModel, whose earlier states"):
        load_language_model(folder, CPU, 2)


def test_loading_prints_nothing_and_leaves_transformers_logging_as_it_was(
    tiny_models: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    records = io.StringIO()
    handler = python_logging.StreamHandler(records)
    logging.add_handler(handler)
    try:
        load_language_model(tiny_models["llama"], CPU, 1)
    finally:
        logging.remove_handler(handler)
    assert capfd.readouterr() == ("", "")
    assert records.getvalue() == "", "not even that the head, which nobody asked for, is unused"
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"`embed\.device=cuda` needs a CUDA device, got none; choose auto or cpu"):
        load_language_model(folder, EmbedConfig(device="cuda"), 1)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(wish) for wish in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_the_default_layer_is_two_thirds_of_the_depth() -> None:
    # 2 * 30 / 3 = 20; 2 * 24 / 3 = 16; 2 * 4 / 3 = 2.67, rounded 3; 2 * 1 / 3 = 0.67, rounded 1
    assert [default_layer(depth) for depth in (30, 24, 4, 1)] == [20, 16, 3, 1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [1, 2, DEPTH])
def test_only_the_layers_that_are_needed_run(tiny_models: dict[str, Path], architecture: str, layer: int) -> None:
    model = load_language_model(tiny_models[architecture], CPU, layer)
    block = {"llama": "LlamaDecoderLayer", "gpt2": "GPT2Block", "qwen3": "Qwen3DecoderLayer"}[architecture]
    calls: Counter[str] = Counter()

    def count(called: torch.nn.Module, _inputs: Any) -> None:
        calls[type(called).__name__] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        ids = torch.tensor([[5, 6, 7]])
        states = model.hidden_states(ids)
    finally:
        handle.remove()
    assert calls[block] == layer
    assert states.shape == (1, 3, model.hidden_size)
    assert (model.layer, model.depth) == (layer, DEPTH)
    heads = [m for m in model.model.modules() if getattr(m, "out_features", 0) == model.vocabulary]
    assert heads == [], "the language-model head must not be there"


def test_dropout_is_off_and_precision_is_as_asked(tiny_models: dict[str, Path]) -> None:
    model = load_language_model(tiny_models["gpt2"], CPU, 2)
    ids = torch.arange(10)[None]
    first = model.hidden_states(ids)
    assert torch.equal(first, model.hidden_states(ids))
    assert first.dtype == torch.float32
    half = load_language_model(tiny_models["gpt2"], EmbedConfig(device="cpu", dtype="bfloat16"), 2)
    states = half.hidden_states(ids)
    assert states.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits, so a relative error of some per cent is expected and an equal result would be wrong.
    error = float(((states.float() - first).norm() / first.norm()).detach())
    assert 1e-4 < error < 0.1


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be a decoder with a list of 3 blocks, got Linear; choose a causal"):
        LanguageModel(torch.nn.Linear(2, 2), None, 1, 3)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize(("layer", "tokens"), [(1, 7), (3, 7), (DEPTH, 24)])
def test_flops_equal_torch_s_count_of_the_weights_and_the_causal_half_of_its_attention(
    tiny_models: dict[str, Path], architecture: str, layer: int, tokens: int
) -> None:
    """Torch counts attention over all pairs of tokens; a decoder sees each earlier token and itself.

    With T tokens, torch's attention is 4 L w T^2 and ours 4 L w T (T + 1) / 2, where w = heads times their width.
    Weights must agree exactly. Neither counts norms, biases, rotations or activations.
    """
    model = load_language_model(tiny_models[architecture], CPU, layer)
    model.model.set_attn_implementation("eager")  # torch counts its two matrix products one by one
    ids = torch.arange(tokens)[None]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.hidden_states(ids)
    weights = attention = 0
    for name, counts in counter.get_flop_counts().items():
        if name.startswith(type(model.model).__name__ + ".layers.") and name.count(".") == 2:
            for operation, flops in counts.items():
                weights += flops * (str(operation) in ("aten.mm", "aten.addmm"))
                attention += flops * (str(operation) == "aten.bmm")
    width = 4 * {"llama": 8, "qwen3": 16}[architecture]
    assert attention == 4 * layer * width * tokens**2
    assert weights > 0
    assert model.flops([tokens]) == weights + attention * (tokens + 1) // (2 * tokens)


def test_flops_add_up_over_sequences_and_grow_with_the_layer(tiny_models: dict[str, Path]) -> None:
    one, two = (load_language_model(tiny_models["gpt2"], CPU, layer) for layer in (1, 2))
    assert one.flops([5, 9, 9]) == one.flops([5]) + 2 * one.flops([9])
    assert two.flops([9]) == 2 * one.flops([9])
    # GPT-2 block, h = 24: 3 h^2 + h^2 + 4 h^2 + 4 h^2 = 12 h^2 = 6912 weights; one token sees itself: 4 h = 96.
    assert one.flops([1]) == 2 * 12 * 24**2 + 4 * 24


def test_importing_the_module_loads_neither_torch_nor_transformers() -> None:
    import subprocess

    code = "import sys, coala_core.language_model as m; print('torch' in sys.modules, 'transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.split() == ["False", "False"]
