"""Promotion of a head as a Prefect flow."""

from __future__ import annotations

from prefect import flow
from pydantic import Field

from coala_core.config import StageConfig
from tasks.promotion import Promotion, promote_task


class PromotionConfig(StageConfig):
    """Which head to register, and under which name."""

    run: str = Field(min_length=1)
    """MLflow or Prefect id of a pipeline run, or the folder of its evaluation."""
    name: str = Field(default="coala-head", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$")
    """Registered model in MLflow."""
    dry_run: bool = False
    """Decide and say why, but write nothing."""
    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""


@flow(name="coala-promote")
def coala_promote(config: PromotionConfig) -> Promotion:
    """Register a run's head as candidate; make it champion if it beats the champion on the same pairs."""
    return promote_task(config.store, config.run, config.name, config.dry_run)
