"""A whole chain of stages on generated lessons and a tiny model, made once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from coala_core.config import PipelineConfig
from coala_core.stages import embed, evaluate, finetune, solve, split, triplets
from coala_core.storage import Artifact, Store
from tests.lessons import quick_config


class Chain(NamedTuple):
    """A store with one artifact of every stage."""

    store: Store
    config: PipelineConfig
    triplets: Artifact
    split: Artifact
    embed: Artifact
    solve: Artifact
    finetune: Artifact
    evaluate: Artifact


def make_chain(config: PipelineConfig) -> Chain:
    """Run every stage."""
    store = Store(config.store)
    a = triplets.run(store, config.triplets)
    b = split.run(store, config.split, a)
    c = embed.run(store, config.embed, a)
    d = solve.run(store, config.solve, c, b)
    e = finetune.run(store, config.finetune, d)
    return Chain(store, config, a, b, c, d, e, evaluate.run(store, config.evaluate, e))


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, lessons: Path, tiny_models: dict[str, Path]) -> Chain:
    """One to read from; tests that write use a store of their own."""
    return make_chain(quick_config(tmp_path_factory.mktemp("chain"), lessons, tiny_models["llama"]))


@pytest.fixture(scope="session")
def second_chain(tmp_path_factory: pytest.TempPathFactory, lessons: Path, tiny_models: dict[str, Path]) -> Chain:
    """The same settings and seeds in another store."""
    return make_chain(quick_config(tmp_path_factory.mktemp("second"), lessons, tiny_models["llama"]))
