"""The frozen language model's hidden states: only the layers that are needed run, and never the head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coala_core.config import EmbedConfig
from coala_core.embed.model_probe import check_causal, why_unshared
from coala_core.embed.model_settings import choose_device, read_depth, resolve_settings
from coala_core.embed.model_source import quiet_transformers
from coala_core.embed.prefix_tree import PackedBatch

if TYPE_CHECKING:
    import torch


class LanguageModel:
    """A frozen decoder, cut off above the highest hidden layer that is read.

    Parameters
    ----------
    model : torch.nn.Module
        Base model without head; its layers above the highest of `layers` are removed.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    layers : sequence of int
        Hidden layers to read: 1 is the output of the first block, the depth is the final, normalised one.
    depth : int
        Number of blocks before the cut.
    """

    def __init__(self, model: Any, tokenizer: Any, layers: Sequence[int], depth: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.layers = tuple(layers)
        self.depth = depth
        self.unshared: str | None = None
        """Why common prefixes cannot be computed once; None if they can."""
        self.windows: set[int | None] = set()
        """Sliding windows that the layers asked for in the last packed pass."""
        self._attention = model.config._attn_implementation
        self._captured: dict[int, Any] = {}
        blocks = self._blocks = _decoder_blocks(model, depth)
        del blocks[max(layers) :]
        for layer in self.layers:
            if layer < depth:
                blocks[layer - 1].register_forward_hook(partial(self._capture, layer))

    def _capture(self, layer: int, _module: Any, _inputs: Any, output: Any) -> None:
        self._captured[layer] = output[0] if isinstance(output, tuple) else output

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

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def hidden_states(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """States of the chosen layers, for rows of one sequence each.

        No mask is given: attention is causal and padding is on the right, so no token sees any, and the
        forward pass without a mask is faster.

        Parameters
        ----------
        token_ids : (rows, tokens) int64, padded on the right with any id

        Returns
        -------
        tuple of (rows, tokens, hidden) in the model's precision, one for each of `layers`
            Padded positions hold nothing of use.
        """
        self._attend_with(self._attention)
        return self._forward(input_ids=token_ids)

    def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
        """States of the chosen layers for sequences packed by common prefix, every token computed once.

        Parameters
        ----------
        batch : PackedBatch
            Its paths say where each sequence's states are.

        Returns
        -------
        tuple of (tokens, hidden) in the model's precision, one for each of `layers`

        Raises
        ------
        NotImplementedError
            If the model's attention does something that cannot be done along a tree.
        """
        from coala_core.embed import tree_attention

        ids, positions = (torch_row(values, self.device) for values in (batch.token_ids, batch.positions))
        self._attend_with(tree_attention.NAME)
        with tree_attention.attention_plan(batch.chains) as plan:
            states = self._forward(input_ids=ids, position_ids=positions)
        self.windows = plan.windows
        return tuple(state[0] for state in states)

    def _attend_with(self, implementation: str) -> None:
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)

    def _forward(self, **inputs: Any) -> tuple[torch.Tensor, ...]:
        output = self.model(use_cache=False, **inputs)
        states = {self.depth: output.last_hidden_state, **self._captured}
        self._captured = {}
        return tuple(states[layer] for layer in self.layers)

    def flops(self, tokens: int, attended: int) -> int:
        """Floating-point operations of computing so many tokens, padding excluded.

        Two per weight matrix entry of the blocks and token, and four per attention unit (heads times their
        width), block and pair of a token with one that it sees. Norms, biases and activations are left out; every
        expert of a mixture is counted.

        Parameters
        ----------
        tokens : int
            Tokens computed.
        attended : int
            Pairs of tokens, the token itself included: t (t + 1) / 2 for a sequence of t tokens alone.
        """
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_attention_heads", 0)  # none where nothing attends
        width = heads * (getattr(config, "head_dim", None) or self.hidden_size // max(1, heads))
        weights = sum(p.numel() for p in self._blocks.parameters() if p.dim() > 1)
        return int(2 * weights * tokens + 4 * max(self.layers) * width * attended)


def torch_row(values: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """Copy a vector to the device as a (1, tokens) tensor."""
    import torch

    return torch.from_numpy(values).to(device).unsqueeze(0)


def load_language_model(directory: Path, config: EmbedConfig) -> LanguageModel:
    """Load tokenizer and base model, without the language-model head, ready for the layers asked for.

    Parameters
    ----------
    directory : Path
        Folder with configuration, tokenizer and safetensors weights.
    config : EmbedConfig
        Layers, precision, device and window; what is left to the model and the machine is filled in.

    Raises
    ------
    ValueError
        If a layer exceeds the depth, `config.max_tokens` the model's positions, CUDA is asked for and absent, the
        weights are incomplete, or the model is not causal.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    settings = resolve_settings(directory, config)
    device = choose_device(config.device)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            directory,
            dtype=getattr(torch, settings.dtype),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    _check_loaded(model, loading["missing_keys"], config)
    language_model = LanguageModel(model.eval().to(device), tokenizer, settings.layers, read_depth(directory))
    check_causal(language_model, config)
    language_model.unshared = why_unshared(language_model, settings)
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


def _decoder_blocks(model: Any, depth: int) -> Any:
    from torch.nn import ModuleList

    lists = [module for module in model.modules() if isinstance(module, ModuleList) and len(module) == depth]
    if not lists:
        raise ValueError(
            f"`embed.model` must be a decoder with a list of {depth} blocks, got {type(model).__name__}; "
            "choose a causal language model"
        )
    return lists[0]
