"""`coala promote`: register a head, and make it the champion if it has earned that."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from coala_core.config import PipelineConfig, parse_config
from flows.settings import StoreFolder


def promote(
    run: str,
    *,
    name: str = "coala-head",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    store: StoreFolder = None,
) -> None:
    """Register a run's head as candidate; make it champion if it beats the champion on the same test pairs.

    Parameters
    ----------
    run
        MLflow or Prefect id of a pipeline run, or the folder of its evaluation.
    name
        Registered model in MLflow.
    dry_run
        Decide and say why, but write nothing.
    store
        Folder of all artifacts.
    """
    from flows.console import out
    from flows.promote import PromotionConfig, coala_promote

    settings = {"run": run, "name": name, "dry_run": dry_run, "store": store or PipelineConfig().store}
    result = coala_promote(parse_config(settings, PromotionConfig, source="the command line"))
    version = "the head" if result.version is None else f"version {result.version}"
    outcome = "champion" if result.champion else "candidate"
    would = "would be" if dry_run else "is"
    out.print(f"{result.name}: {version} {would} {outcome}. {result.reason}", markup=False)
