"""Stage ``quality``: what the pairs are like, and whether they are worth training on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from coala_core.config import BUILTIN_CONVERSATIONS, QualityConfig
from coala_core.progress import Progress, silent
from coala_core.quality import assess, quality_markdown
from coala_core.quality.pictures import CAPTIONS, pictures
from coala_core.stages.base import Plan, by_content, produce
from coala_core.stages.split import SPLIT
from coala_core.stages.triplets import REJECTS, TRIPLETS
from coala_core.storage import Artifact, Store, Workspace

STAGE = "quality"
REVISION = 1
REPORT = "quality.json"
MARKDOWN = "quality.md"


def plan(store: Store, config: QualityConfig, triplets: Artifact, split: Artifact | None = None) -> Plan:
    """Key of the report: the triplets, the split if there is one, and the configuration."""
    inputs = {"triplets": triplets} | ({"split": split} if split else {})
    return Plan(STAGE, REVISION, config.model_dump(), inputs, {**config.model_dump(), **by_content(inputs)})


def run(
    store: Store,
    config: QualityConfig,
    triplets: Artifact,
    split: Artifact | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Measure the pairs, and write ``quality.json``, ``quality.md`` and up to three pictures.

    A measure above its limit is stated, never raised: whoever runs the stage decides what follows.

    Parameters
    ----------
    store : Store
        Where the artifact goes, and where an equal one is looked for.
    config : QualityConfig
        Sample, similarity, limits and seed.
    triplets : Artifact
        Of the stage ``triplets``.
    split : Artifact, optional
        Of the stage ``split``, of the same triplets; without it leaks between splits are not measured.
    progress : Progress
        Told pairs read, then texts compared.

    Raises
    ------
    ValueError
        If the split is of other triplets.
    """
    if split is not None and split.manifest["inputs"]["triplets"]["sha256"] != triplets.sha256:
        raise ValueError(
            f"`quality` needs the split of the triplets `{triplets.path}`, got one of others, `{split.path}`; "
            "split these triplets"
        )

    def compute(workspace: Workspace) -> None:
        workspace.clear()
        quality = assess(
            triplets.path / TRIPLETS,
            triplets.path / REJECTS,
            triplets.report,
            config,
            split=split.path / SPLIT if split else None,
            split_report=split.report if split else None,
            progress=progress,
        )
        report = {"name": data_name(triplets), **quality.report}
        drawn = pictures(quality)
        for name, draw in drawn.items():
            workspace.write(name, draw)
        text = quality_markdown(report, {name: CAPTIONS[name] for name in drawn})
        workspace.write_json(REPORT, report)
        workspace.write(MARKDOWN, lambda path: _write(text, path))
        workspace.report = summary(report)

    return produce(store, plan(store, config, triplets, split), compute)


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def data_name(triplets: Artifact) -> str:
    """Name the data that triplets were built from, without the folders that it lies in."""
    name = str(triplets.manifest["config"]["conversations"])
    return "the built-in conversations" if name == BUILTIN_CONVERSATIONS else PurePath(name).name


def page(folder: Path) -> str:
    """Return a finished report as Markdown without its pictures, for a page that cannot show files.

    Parameters
    ----------
    folder : Path
        Of a ``quality`` artifact.
    """
    return quality_markdown(json.loads((folder / REPORT).read_text(encoding="utf-8")))


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Condense a report to what one compares data sets by: sizes, the value behind every limit, and what exceeds it.

    Parameters
    ----------
    report : mapping
        Of `coala_core.quality.assess`.
    """
    limits = report["limits"]
    size = {name: report["size"][name] for name in ("pairs", "conversations", "groups")}
    values = {limit["limit_name"].removeprefix("max_"): limit["value"] for limit in limits}
    return {
        **size,
        **values,
        "longer_wins": report["length_bias"]["longer_wins"],
        "limits_exceeded": sum(limit["kept"] is False for limit in limits),
        "exceeded": [limit["measure"] for limit in limits if limit["kept"] is False],
        "languages": [row["language"] for row in report["languages"]["languages"][:3]],
    }
