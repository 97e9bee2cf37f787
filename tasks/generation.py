"""The stage that writes conversations, as a Prefect task."""

from __future__ import annotations

from coala_core.config import GenerateConfig
from coala_core.stages import generate
from coala_core.storage import Artifact, Store
from tasks.stage import reported_progress, stage_task


@stage_task(generate)
def generate_task(store: str, config: GenerateConfig) -> Artifact:
    """Two agents in, conversations out."""
    with reported_progress("generate") as progress:
        return generate.run(Store(store), config, progress)
