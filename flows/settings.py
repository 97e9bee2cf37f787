"""From YAML, named options and `--set` to one checked configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from cyclopts import Parameter

from coala_core.config import PipelineConfig, load_config, parse_config
from coala_core.config.pipeline import RunConfig, place_setting

ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c"], help="YAML with any of the sections.")]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name=["--set", "-s"], negative="", help="SECTION.NAME=VALUE, any setting, as often as needed."),
]
StoreFolder = Annotated[str | None, Parameter(name="--store", help="Folder of all artifacts.")]


def configure(config: Path | None, settings: Sequence[str], **named: object) -> PipelineConfig:
    """Return a pipeline's configuration; see `configure_as`."""
    return configure_as(PipelineConfig, config, settings, **named)


def configure_as(kind: type[RunConfig], config: Path | None, settings: Sequence[str], **named: object) -> RunConfig:
    """Merge YAML, named options and `--set`, later ones first in rank, into one checked configuration.

    Raises
    ------
    ValueError
        If a key is unknown, a value out of range, or a `--set` not of the form SECTION.NAME=VALUE.
    """
    content = load_config(config, kind).model_dump(exclude_unset=True) if config else {}
    for name, value in named.items():
        if value is not None:
            place_setting(content, name.replace("__", "."), value)
    for setting in settings:
        place_setting(content, *parsed("--set", setting))
    return parse_config(content, kind, source="the command line" if config is None else str(config))


def parsed(option: str, setting: str) -> tuple[str, object]:
    """Read NAME=VALUE, the value as YAML.

    Raises
    ------
    ValueError
        If there is no name, no equals sign or no YAML.
    """
    name, equals, value = setting.partition("=")
    if not equals or not name:
        raise ValueError(f"`{option}` must be SECTION.NAME=VALUE, got {setting!r}; for example {option} solve.gates=20")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(
            f"`{option} {setting}` must have a YAML value, got {value!r}; quote text with signs"
        ) from error
