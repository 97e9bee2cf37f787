"""The frozen language model's hidden states: only the layers that are needed run, and never the head."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coala_core.config import EmbedConfig
from coala_core.model_source import quiet_transformers

if TYPE_CHECKING:
    import torch


class LanguageModel:
    """A frozen decoder, cut off above one hidden layer.

    Parameters
    ----------
    model : torch.nn.Module
        Base model without head; its layers above `layer` are removed.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    layer : int
        Hidden layer to read: 1 is the output of the first block, the depth is the final, normalised one.
    depth : int
        Number of blocks before the cut.
    """

    def __init__(self, model: Any, tokenizer: Any, layer: int, depth: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layer = layer
        self.depth = depth
        self._captured: Any = None
        blocks = _decoder_blocks(model, depth)
        del blocks[layer:]
        if layer < depth:
            blocks[layer - 1].register_forward_hook(self._capture)

    def _capture(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._captured = output[0] if isinstance(output, tuple) else output

    @property
    def hidden_size(self) -> int:
        """Width of one token's state."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the embedding table knows."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def hidden_states(self, token_ids: torch.Tensor) -> torch.Tensor:
        """States of the chosen layer.

        No mask is given: attention is causal and padding is on the right, so no token sees any, and the
        forward pass without a mask is faster.

        Parameters
        ----------
        token_ids : (rows, tokens) int64, padded on the right with any id

        Returns
        -------
        (rows, tokens, hidden) in the model's precision; padded positions hold nothing of use.
        """
        output = self.model(input_ids=token_ids, use_cache=False)
        states: torch.Tensor = self._captured if self.layer < self.depth else output.last_hidden_state
        self._captured = None
        return states

    def flops(self, lengths: list[int]) -> int:
        """Floating-point operations of a forward pass over sequences of these lengths, without padding.

        Two per weight matrix entry of the blocks and token, and four per attention unit (heads times their
        width), block and visible pair of tokens. Norms, biases and activations are left out; every expert of a
        mixture is counted.
        """
        config = self.model.config.get_text_config()
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or self.hidden_size // heads)
        weights = sum(p.numel() for p in _decoder_blocks(self.model, self.layer).parameters() if p.dim() > 1)
        attention = 4 * self.layer * width * sum(t * (t + 1) // 2 for t in lengths)
        return int(2 * weights * sum(lengths) + attention)


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
    return int(_read_config(directory).num_hidden_layers)


def resolve_settings(directory: Path, config: EmbedConfig) -> EmbedConfig:
    """Fill in what depends on the model: the layer where none is given, and a window that the model has.

    Raises
    ------
    ValueError
        As `read_depth`.
    """
    model = _read_config(directory)
    positions = getattr(model, "max_position_embeddings", None) or config.max_tokens
    layer = config.layer or default_layer(int(model.num_hidden_layers))
    return config.model_copy(update={"layer": layer, "max_tokens": min(config.max_tokens, positions)})


def _read_config(directory: Path) -> Any:
    """Read the configuration of the model's decoder."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"`embed.model={directory}` must be a model that transformers knows without remote code, got: {error}"
        ) from error
    return config.get_text_config()


def load_language_model(directory: Path, config: EmbedConfig, layer: int) -> LanguageModel:
    """Load tokenizer and base model, without the language-model head, ready for `layer`.

    Raises
    ------
    ValueError
        If `layer` exceeds the depth, `config.max_tokens` the model's positions, CUDA is asked for and absent, the
        weights are incomplete, or the model is not causal.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    depth = read_depth(directory)
    if layer > depth:
        raise ValueError(f"`embed.layer` must be at most the depth {depth} of the model, got {layer}; lower it")
    device = choose_device(config.device)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            directory,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    _check_loaded(model, loading["missing_keys"], config)
    language_model = LanguageModel(model.eval().to(device), tokenizer, layer, depth)
    _check_causal(language_model, config)
    return language_model


def _check_loaded(model: Any, missing: Collection[str], config: EmbedConfig) -> None:
    if missing:  # transformers would fill them with random numbers
        raise ValueError(
            f"`embed.model={config.model}` must hold all weights, got none for {len(missing)} tensors, first "
            f"{min(missing)}; fetch or save the model again"
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and config.max_tokens > positions:
        raise ValueError(
            f"`embed.max_tokens` must be at most the model's {positions} positions, got {config.max_tokens}; lower it"
        )


def _check_causal(language_model: LanguageModel, config: EmbedConfig) -> None:
    """Refuse models in which later tokens, padding among them, move the states of earlier ones."""
    import torch

    later = torch.stack([torch.zeros(15, dtype=torch.int64), torch.arange(1, 16) % language_model.vocabulary])
    ids = torch.nn.functional.pad(later, (1, 0)).to(language_model.device)
    with torch.inference_mode():
        first, second = language_model.hidden_states(ids)[:, 0].float()
    if (first - second).norm() > 1e-2 * first.norm():
        raise ValueError(
            f"`embed.model={config.model}` must be a causal language model, got {type(language_model.model).__name__}, "
            "whose earlier states depend on later tokens; choose a decoder"
        )


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


def _decoder_blocks(model: Any, depth: int) -> Any:
    from torch.nn import ModuleList

    lists = [module for module in model.modules() if isinstance(module, ModuleList) and len(module) == depth]
    if not lists:
        raise ValueError(
            f"`embed.model` must be a decoder with a list of {depth} blocks, got {type(model).__name__}; "
            "choose a causal language model"
        )
    return lists[0]
