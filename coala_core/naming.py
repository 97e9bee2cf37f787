"""Names of runs that say what they are."""

from __future__ import annotations

from pathlib import PurePath

from coala_core.config import BUILTIN_CONVERSATIONS, PipelineConfig


def run_name(config: PipelineConfig) -> str:
    """Name data, model and split seed, such as "built-in conversations, built-in model, seed 0".

    Folders are left out of the name, for privacy and for length.
    """
    source = config.triplets.conversations
    data = "built-in conversations" if source == BUILTIN_CONVERSATIONS else PurePath(source).name
    model = "built-in model" if config.embed.model == "builtin" else PurePath(config.embed.model).name
    return f"{data}, {model}, seed {config.split.seed}"
