"""Heads side by side on the same test pairs, as a Prefect flow."""

from __future__ import annotations

from prefect import flow
from pydantic import Field

from coala_core.config import StageConfig
from coala_core.storage import Store, open_artifact
from tasks.compared import NEWEST, ComparedHead, compare_evaluations, newest_evaluations, publish_comparison


class CompareConfig(StageConfig):
    """Which evaluations to compare."""

    evaluations: tuple[str, ...] = ()
    """Folders of evaluations, as runs print them; the first is what the others are compared with. Without any, the
    newest ones of the store are taken that scored the same test pairs, the oldest of them first."""
    newest: int = Field(default=NEWEST, ge=2, le=100)
    """How many at most where none is named."""
    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""


@flow(name="coala-compare")
def coala_compare(config: CompareConfig) -> list[ComparedHead]:
    """Compare heads with the first of them, pair by pair, with an interval over whole groups."""
    store = Store(config.store)
    named = [open_artifact(folder, "evaluate") for folder in config.evaluations]
    compared = compare_evaluations(store, named or newest_evaluations(store, config.newest))
    publish_comparison(compared)
    return compared
