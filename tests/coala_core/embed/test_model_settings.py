"""What is settled before a language model is loaded: layers, window, precision and device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coala_core.config import EmbedConfig
from coala_core.embed.model_settings import (
    choose_device,
    choose_dtype,
    default_layer,
    describe_model,
    read_depth,
    resolve_settings,
)
from tests.tiny_models import DEPTH


@pytest.fixture
def folder(tmp_path: Path, tiny_models: dict[str, Path]) -> Path:
    """A copy of the Qwen3-type model that a test may change."""
    return Path(shutil.copytree(tiny_models["qwen3"], tmp_path / "model"))


def test_settings_that_depend_on_the_model_are_filled_in(folder: Path) -> None:
    filled = resolve_settings(folder, EmbedConfig(max_tokens=9999, device="cpu", dtype="float32"))
    assert (filled.layers, filled.max_tokens) == ((3,), 4096)  # two thirds of 4 blocks is 2.67; 4096 positions
    wish = EmbedConfig(layers=(4, 1), max_tokens=64, device="cpu", dtype="bfloat16", poolings=("last",))
    assert resolve_settings(folder, wish) == wish


def test_the_precision_is_filled_in_for_the_device_that_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_settings(folder, EmbedConfig()).dtype == "bfloat16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_settings(folder, EmbedConfig()).dtype == "float32"


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_taken_where_the_processor_multiplies_it_itself(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return fast or including_emulation  # CUDA emulates it on older devices, which is slow

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    expected = "bfloat16" if fast else "float32"
    assert [choose_dtype("auto", device) for device in ("cuda", "cpu")] == [expected, expected]
    for wish in ("float32", "bfloat16"):
        assert [choose_dtype(wish, device) for device in ("cuda", "cpu")] == [wish, wish]


def test_a_layer_beyond_the_depth_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"`embed\.layers` must be at most the depth {DEPTH} .*, got {DEPTH + 1}"):
        resolve_settings(folder, EmbedConfig(layers=(1, DEPTH + 1), device="cpu"))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"model_type": "not-a-model"}'])
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"must be a model that transformers knows without remote code, got "):
        read_depth(tmp_path)


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    proof = folder / "was_run"
    (folder / "own.py").write_text(f"open({str(proof)!r}, 'w').close()\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    for ask in (read_depth, describe_model):
        with pytest.raises(
            ValueError, match=r"got one that brings its own code \(auto_map\), .*; choose another"
        ) as told:
            ask(folder)
        assert "=True" not in str(told.value)  # transformers' own advice
    assert not proof.exists()


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"`embed\.device=cuda` needs a CUDA device, got none; choose auto or cpu"):
        resolve_settings(folder, EmbedConfig(device="cuda"))
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(wish) for wish in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_the_default_layer_is_two_thirds_of_the_depth() -> None:
    # 2 * 30 / 3 = 20; 2 * 24 / 3 = 16; 2 * 4 / 3 = 2.67, rounded 3; 2 * 1 / 3 = 0.67, rounded 1
    assert [default_layer(depth) for depth in (30, 24, 4, 1)] == [20, 16, 3, 1]


def test_a_model_is_described_without_its_weights(folder: Path, tiny_models: dict[str, Path]) -> None:
    (folder / "model.safetensors").unlink()
    assert describe_model(folder) == {"depth": DEPTH, "hidden_size": 32, "has_chat_template": True}
    assert describe_model(tiny_models["gpt2"]) == {"depth": DEPTH, "hidden_size": 24, "has_chat_template": False}


@pytest.mark.parametrize(
    ("rotation", "window"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 4096),
        ({"rope_type": "longrope", "original_max_position_embeddings": 64, "rope_theta": 1e4}, 64),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 4096),
    ],
    ids=lambda value: str(value["rope_type"] if isinstance(value, dict) else value),
)
def test_a_rotation_that_depends_on_the_longest_sequence_of_a_pass_limits_the_window(
    folder: Path, rotation: dict[str, Any], window: int
) -> None:
    config = json.loads((folder / "config.json").read_text())
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if rotation["rope_type"] == "longrope" else {}
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rotation | factors}))
    assert resolve_settings(folder, EmbedConfig(device="cpu", max_tokens=100_000)).max_tokens == window
