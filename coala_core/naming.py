"""Names of runs that say what they are."""

from __future__ import annotations

from pathlib import PurePath

from coala_core.config import BUILTIN_CONVERSATIONS, BUILTIN_MODEL, DataConfig, PipelineConfig

_LONGEST = 100


def run_name(config: PipelineConfig) -> str:
    """Name data, model and split seed, such as "built-in conversations, built-in model, seed 0".

    Folders are left out of the name, for privacy and for length, and so is what a terminal or a log would obey.
    """
    model = "built-in model" if config.embed.model == BUILTIN_MODEL else _shown(PurePath(config.embed.model).name)
    return f"{_data(config)}, {model}, seed {config.split.seed}"


def data_name(config: DataConfig) -> str:
    """Name data and split seed."""
    return f"{_data(config)}, seed {config.split.seed}"


def _data(config: DataConfig) -> str:
    """Name the conversations."""
    source = config.triplets.conversations
    return "built-in conversations" if source == BUILTIN_CONVERSATIONS else _shown(PurePath(source).name)


def _shown(name: str) -> str:
    """Keep the printable characters of a name, and the first of a long one."""
    printable = "".join(sign if sign.isprintable() else "_" for sign in name)
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}..."
