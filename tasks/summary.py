"""What a finished run says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class StageRecord(BaseModel):
    """One stage of a run."""

    model_config = ConfigDict(frozen=True)

    stage: str
    """Its word."""
    path: Path
    """Folder of its artifact."""
    sha256: str
    """Digest of its manifest."""
    seconds: float
    """Wall-clock seconds of computing it; 0 if it was reused."""
    reused: bool
    """Whether an earlier run had computed it."""
    report: dict[str, Any]
    """What the stage says about its output."""
    performance: dict[str, Any] = {}
    """What it says about this machine at work; empty if it was reused."""


class RunSummary(BaseModel):
    """A finished pipeline run."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Data, model and seed."""
    stages: dict[str, StageRecord]
    """By stage, in order."""
    tracking_uri: str
    """Where MLflow has it."""
    tracking_page: str | None
    """Path of the run's page below the address of MLflow's pages."""
    tracking_url: str | None
    """Page of the MLflow run, where there is a server."""
    pending: int
    """Tracking events that MLflow has not got yet."""
