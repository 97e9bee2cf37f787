"""What all stages share: plan the artifact, reuse it if it is intact, make it if it is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coala_core.housekeeping import holding, mark_used
from coala_core.storage import Artifact, Damaged, Stopwatch, Store, Workspace, reference, stage_key

logger = logging.getLogger("coala.stages")


@dataclass(frozen=True)
class Plan:
    """Everything that determines a stage's output, before any of it is computed.

    Parameters
    ----------
    stage : str
        The stage's one word.
    revision : int
        Raised by the stage's author when equal inputs would give another output.
    config : mapping
        The configuration that the manifest keeps.
    inputs : mapping of str to Artifact
        Artifacts that the stage reads; the manifest keeps references to them.
    identity : mapping
        What the key covers, in place of the paths and names in `config`.
    """

    stage: str
    revision: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Digest that names the artifact."""
        return stage_key(self.stage, self.revision, self.identity)


def produce(store: Store, plan: Plan, compute: Callable[[Workspace], None]) -> Artifact:
    """Return the planned artifact: the intact one if there is one, else what `compute` writes.

    Of two equal calls at once, one computes and the other waits and reuses.
    """
    inputs = plan.inputs.values()
    with store.lock(plan.stage, plan.key), holding(store, plan.stage, plan.key, inputs):
        for artifact in inputs:
            mark_used(artifact.path)
        try:
            found = store.find(plan.stage, plan.key)
        except Damaged as damage:
            logger.warning("%s", damage)
            found = None
        if found is not None:
            mark_used(found.path)
            return found
        watch = Stopwatch()
        workspace = store.workspace(plan.stage, plan.key)
        compute(workspace)
        return store.seal(workspace, plan.stage, plan.key, plan.config, plan.inputs, watch.seconds)


def by_content(inputs: Mapping[str, Artifact]) -> dict[str, dict[str, str]]:
    """Identity of inputs that are read whole: their references, digests included."""
    return {name: reference(artifact) for name, artifact in inputs.items()}
