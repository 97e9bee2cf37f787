"""Names of runs that say what they are."""

from __future__ import annotations

from pathlib import PurePath

from coala_core.config import BUILTIN_CONVERSATIONS, BUILTIN_MODEL, DataConfig, PipelineConfig


def run_name(config: PipelineConfig) -> str:
    """Name data, model and split seed, such as "built-in conversations, built-in model, seed 0".

    Folders are left out of the name, for privacy and for length.
    """
    model = "built-in model" if config.embed.model == BUILTIN_MODEL else PurePath(config.embed.model).name
    return f"{_data(config)}, {model}, seed {config.split.seed}"


def data_name(config: DataConfig) -> str:
    """Name data and split seed."""
    return f"{_data(config)}, seed {config.split.seed}"


def _data(config: DataConfig) -> str:
    """Name the conversations."""
    source = config.triplets.conversations
    return "built-in conversations" if source == BUILTIN_CONVERSATIONS else PurePath(source).name
