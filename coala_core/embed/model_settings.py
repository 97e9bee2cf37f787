"""What is settled of a language model before its weights are loaded: layers, window, precision and device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coala_core.config import EmbedConfig
from coala_core.embed.model_source import quiet_transformers


def default_layer(depth: int) -> int:
    """Two thirds of the depth, rounded, and at least 1: better and cheaper than the last layer on measured sets."""
    return max(1, round(2 * depth / 3))


def read_depth(directory: Path) -> int:
    """Read the number of decoder blocks from the model's configuration alone.

    Raises
    ------
    ValueError
        If there is no readable configuration, or the model needs code that is not part of transformers.
    """
    return int(read_model_config(directory).num_hidden_layers)


def describe_model(directory: Path) -> dict[str, int | bool]:
    """Depth, hidden size and whether the tokenizer has a chat template, without loading the weights.

    Raises
    ------
    ValueError
        As `read_depth`.
    """
    from transformers import AutoTokenizer

    config = read_model_config(directory)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    return {
        "depth": int(config.num_hidden_layers),
        "hidden_size": int(config.hidden_size),
        "has_chat_template": tokenizer.chat_template is not None,
    }


def resolve_settings(directory: Path, config: EmbedConfig) -> EmbedConfig:
    """Fill in what depends on model and machine: layers and precision where none is given, a window that the model has.

    Raises
    ------
    ValueError
        As `read_depth` and `choose_device`, and if a layer exceeds the depth.
    """
    model = read_model_config(directory)
    depth = int(model.num_hidden_layers)
    layers = config.layers or (default_layer(depth),)
    if max(layers) > depth:
        raise ValueError(f"`embed.layers` must be at most the depth {depth} of the model, got {max(layers)}; lower it")
    return config.model_copy(
        update={
            "layers": layers,
            "dtype": choose_dtype(config.dtype, choose_device(config.device)),
            "max_tokens": min(config.max_tokens, _positions(model) or config.max_tokens),
        }
    )


def _positions(model: Any) -> int | None:
    """Length up to which a sequence's states do not depend on what it is batched with; None if there is no limit.

    Some rotations change for the whole forward pass as soon as one position in it exceeds the original window.
    """
    positions: int | None = getattr(model, "max_position_embeddings", None)
    rotation = getattr(model, "rope_parameters", None) or {}
    if rotation.get("rope_type") in ("longrope", "dynamic"):
        return rotation.get("original_max_position_embeddings") or positions
    return positions


def read_model_config(directory: Path) -> Any:
    """Read the configuration of the model's decoder."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, OSError, json.JSONDecodeError) as error:
        got = "one that brings its own code (auto_map), which is never run here" if _brings_code(directory) else error
        raise ValueError(
            f"`embed.model={directory}` must be a model that transformers knows without remote code, got {got}; "
            "choose another model."
        ) from error
    return config.get_text_config()


def _brings_code(directory: Path) -> bool:
    """Whether the model's configuration names Python files of its own; transformers would advise to run them."""
    try:
        return "auto_map" in json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False


def choose_device(wish: str) -> str:
    """Return "cuda" or "cpu": as wished, or for "auto" CUDA where there is one.

    Raises
    ------
    ValueError
        If CUDA is asked for and absent.
    """
    import torch

    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("`embed.device=cuda` needs a CUDA device, got none; choose auto or cpu, or see `coala doctor`")
    return "cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu"


def choose_dtype(wish: str, device: str) -> str:
    """Return "float32" or "bfloat16": as wished, or for "auto" bfloat16 where the processor multiplies it faster.

    That is a CUDA device with bfloat16 tensor cores, or a CPU with AMX tiles; a CPU that merely has bfloat16
    instructions gains little.
    """
    import torch

    if wish != "auto":
        return wish
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"
