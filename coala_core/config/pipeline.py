"""The configuration of a whole run, and how YAML becomes one."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, ValidationError

from coala_core.config.base import CREDENTIALS, StageConfig
from coala_core.config.data import GenerateConfig, QualityConfig, SplitConfig, TripletsConfig
from coala_core.config.training import EmbedConfig, EvaluateConfig, FinetuneConfig, SolveConfig


class TrackingConfig(StageConfig):
    """Where runs are recorded."""

    experiment: str = Field(default="coala", min_length=1)
    """MLflow experiment."""
    run_name: str | None = None
    """Name of the parent run; empty means data, model and seed."""


class PipelineConfig(StageConfig):
    """The whole pipeline, one section per stage."""

    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""
    triplets: TripletsConfig = TripletsConfig()
    """Conversations in, triplets out."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    quality: QualityConfig = QualityConfig()
    """What the pairs are like."""
    embed: EmbedConfig = EmbedConfig()
    """Frozen language model features."""
    solve: SolveConfig = SolveConfig()
    """Phase I."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Phase II."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Test split."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""


class GenerationConfig(StageConfig):
    """Conversations by two agents, with the triplets and the quality report that come of them."""

    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""
    generate: GenerateConfig = GenerateConfig()
    """Two agents in, conversations out."""
    triplets: TripletsConfig = TripletsConfig()
    """How triplets are built; its `conversations` is the generated file."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    quality: QualityConfig = QualityConfig()
    """What the pairs are like."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""


RunConfig = TypeVar("RunConfig", bound=StageConfig)


def load_config(path: Path | str, kind: type[RunConfig]) -> RunConfig:
    """Read the configuration of a run from YAML.

    Parameters
    ----------
    path : Path or str
        YAML file with any of the sections of `kind`; what is absent takes its default.
    kind : type
        `PipelineConfig` or `GenerationConfig`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a YAML mapping, or a key or value is refused; every offence is listed.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"`load_config` needs a YAML file, got no file at `{path}`; correct the path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` must be YAML in UTF-8, got {error}; write the file again") from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"`{path}` must hold a mapping of sections, got {type(content).__name__}")
    return parse_config(content or {}, kind, source=str(path))


def parse_config(content: dict[str, object], kind: type[RunConfig], source: str) -> RunConfig:
    """Validate a mapping as a configuration of `kind`, naming `source` and every offending key in one error.

    Raises
    ------
    ValueError
        If any key is unknown or any value out of range.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        offences = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']} (got {_without_secrets(e['input'])})"
            for e in error.errors()
        )
        raise ValueError(f"`{source}` is not a valid configuration: {offences}") from error


def _without_secrets(value: object) -> str:
    return CREDENTIALS.sub("***@", repr(value))
