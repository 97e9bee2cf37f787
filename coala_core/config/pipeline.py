"""The configuration of a whole run, and how YAML becomes one."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, JsonValue, ValidationError

from coala_core.config.base import CREDENTIALS, QUERY, StageConfig
from coala_core.config.data import GenerateConfig, QualityConfig, SplitConfig, TripletsConfig
from coala_core.config.training import EmbedConfig, EvaluateConfig, FinetuneConfig, SolveConfig


class TrackingConfig(StageConfig):
    """Where runs are recorded."""

    experiment: str = Field(default="coala", min_length=1)
    """MLflow experiment."""
    run_name: str | None = None
    """Name of the parent run; empty means data, model and seed."""


class RecordedConfig(StageConfig):
    """What every run has: a place for its artifacts, and one for its records."""

    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""
    tracking: TrackingConfig = TrackingConfig()
    """How the run is recorded in MLflow."""


class GenerationConfig(RecordedConfig):
    """Conversations by two agents, with the triplets and the quality report that come of them."""

    generate: GenerateConfig = GenerateConfig()
    """Two agents in, conversations out."""
    triplets: TripletsConfig = TripletsConfig()
    """How triplets are built; `conversations` is always the generated file."""
    quality: QualityConfig = QualityConfig()
    """What the pairs are like."""


class DataConfig(RecordedConfig):
    """From a file of conversations to split triplets and what is to be said about them."""

    triplets: TripletsConfig = TripletsConfig()
    """Conversations in, triplets out."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    quality: QualityConfig = QualityConfig()
    """What the pairs are like."""


class PipelineConfig(DataConfig):
    """The whole pipeline, one section per stage."""

    embed: EmbedConfig = EmbedConfig()
    """Frozen language model features."""
    solve: SolveConfig = SolveConfig()
    """Phase I."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Phase II."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Test split."""


class SweepConfig(StageConfig):
    """Many pipelines that differ in some settings, compared on the validation split."""

    pipeline: PipelineConfig = PipelineConfig()
    """What the runs have in common."""
    grid: dict[str, tuple[JsonValue, ...]] = {"solve.gates": (20, 50, 100)}
    """Values by setting, such as {"solve.gates": [20, 50]}; every combination is one run."""
    max_runs: int = Field(default=64, ge=1, le=10_000)
    """Refuse a grid of more combinations."""

    def runs(self) -> list[tuple[dict[str, JsonValue], PipelineConfig]]:
        """List every combination with its configuration, the last setting varying fastest.

        Raises
        ------
        ValueError
            If the grid is empty or too large, or a setting or value is refused.
        """
        size = math.prod(len(values) for values in self.grid.values())
        if not self.grid or not 1 <= size <= self.max_runs:
            raise ValueError(
                f"`sweep.grid` must give 1 to {self.max_runs} runs, got {size if self.grid else 0} combinations of "
                f"{len(self.grid)} settings; change the values, or raise `sweep.max_runs`"
            )
        found = []
        for values in itertools.product(*self.grid.values()):
            choice = dict(zip(self.grid, values, strict=True))
            content = self.pipeline.model_dump(mode="json")
            for name, value in choice.items():
                place_setting(content, name, value)
            found.append((choice, parse_config(content, PipelineConfig, source="sweep.grid")))
        return found


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
    return QUERY.sub("?***", CREDENTIALS.sub("***@", repr(value)))


def place_setting(content: dict[str, Any], name: str, value: object) -> None:
    """Put a value under a dotted name into nested sections, in place.

    Raises
    ------
    ValueError
        If what should be a section holds a value.
    """
    *sections, last = name.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ValueError(f"`{section}` must be a section with settings, got {content!r}; set {name} alone")
    content[last] = value
