"""Promotion on a real pipeline's artifacts and a real database."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities.model_registry import RegisteredModel
from mlflow.tracking import MlflowClient

from coala_core.comparison import compare_paired
from coala_core.heads import read_head
from coala_core.lineage import Lineage
from coala_core.metrics import pair_outcomes
from coala_core.storage import Artifact, Store
from tasks.promotion import DIGEST_TAG, promote
from tasks.registry import ARTIFACTS_TAG, CHAMPION, Registry
from tasks.tracking import store_uri
from tests.tasks.recorded_pipeline import config_of, head_chain, record, write_pairs

Chains = dict[str, tuple[Any, dict[str, Artifact]]]

KEPT = ("triplets", "split", "embed", "solve", "finetune", "evaluate", "features")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> tuple[Path, Chains]:
    """Artifacts of several heads: one that is right, one that is wrong, on two data sets and two layers."""
    root = tmp_path_factory.mktemp("built")
    first, second = write_pairs(root / "first.jsonl"), write_pairs(root / "second.jsonl", first=500)
    model, store = tiny_models["llama"], root / "store"
    wanted: dict[str, tuple[Path, dict[str, Any], bool]] = {
        "right": (first, {}, False),
        "wrong": (first, {}, True),
        "elsewhere": (second, {}, False),
        "other layer": (first, {"solve": {"layer": 2}}, False),
        "all other": (second, {"solve": {"layer": 2}}, False),
    }
    chains = {}
    for name, (pairs, sections, wrong) in wanted.items():
        config = config_of(store, pairs, model, **sections)
        chains[name] = (config, head_chain(config, wrong=wrong))
    return store, chains


@pytest.fixture
def ready(
    built: tuple[Path, Chains], make_store: Callable[[str], Path]
) -> tuple[Store, Callable[[str], str], Callable[[str], Any]]:
    """A store with the artifacts and an empty MLflow; a folder by name, and what records a run."""
    root, chains = built
    store = make_store("store")
    for kind in KEPT:
        shutil.copytree(root / kind, store / kind, copy_function=shutil.copy2)

    def folder(name: str) -> str:
        return str(store / chains[name][1]["evaluate"].path.relative_to(root))

    def recorded(name: str) -> Any:
        config, made = chains[name]
        moved = {
            stage: artifact.model_copy(update={"path": store / artifact.path.relative_to(root)})
            for stage, artifact in made.items()
        }
        return record(config.model_copy(update={"store": str(store)}), moved, name)

    return Store(store), folder, recorded


def registered(store: Store) -> dict[str, RegisteredModel]:
    found = MlflowClient(tracking_uri=store_uri(store.root)).search_registered_models()
    return {model.name: model for model in found}


pytestmark = pytest.mark.slow


def test_the_first_head_becomes_champion_if_it_beats_guessing(ready):
    store, folder, recorded = ready
    recorded("right")
    tried = promote(store, folder("right"), "head", dry_run=True)
    assert (tried.champion, tried.version, registered(store)) == (True, None, {})
    done = promote(store, folder("right"), "head")
    assert done == tried.model_copy(update={"version": "1", "dry_run": False})
    assert done.lead_low > 0 and done.against is None
    model = registered(store)["head"]
    assert {name: str(version) for name, version in model.aliases.items()} == {"candidate": "1", "champion": "1"}
    (version,) = Registry(store.root).versions("head")
    assert version.tags["coala.reason"] == done.reason and "against guessing" in done.reason
    assert version.description.startswith("Version 1 became the champion.")
    lineage = Lineage.of(store, store.find("evaluate", Path(folder("right")).name))
    assert json.loads(version.tags[ARTIFACTS_TAG]) == lineage.keys
    assert version.tags[DIGEST_TAG] == lineage.test_digest()
    again = promote(store, folder("right"), "head")
    assert (again.champion, again.version, len(Registry(store.root).versions("head"))) == (True, "1", 1)
    assert "is the champion already" in again.reason


def test_a_first_head_that_does_not_beat_guessing_is_a_candidate_only(ready):
    store, folder, recorded = ready
    recorded("wrong")
    done = promote(store, folder("wrong"), "head")
    assert (done.champion, done.version) == (False, "1")
    assert set(registered(store)["head"].aliases) == {"candidate"}
    assert "does not lie above 0" in done.reason


def test_a_better_head_takes_the_alias_and_a_worse_one_does_not_take_it_back(ready):
    store, folder, recorded = ready
    recorded("wrong")
    recorded("right")
    promote(store, folder("wrong"), "head")
    Registry(store.root).point("head", CHAMPION, 1)
    done = promote(store, folder("right"), "head")
    assert (done.champion, done.version, done.against) == (True, "2", "1")
    back = promote(store, folder("wrong"), "head")
    assert (back.champion, back.version, back.against) == (False, "1", "2")
    assert back.lead == pytest.approx(-done.lead)
    aliases = {name: str(version) for name, version in registered(store)["head"].aliases.items()}
    assert aliases == {"candidate": "1", "champion": "2"}


def test_on_other_pairs_the_champion_is_scored_anew_on_the_same_features(ready):
    store, folder, recorded = ready
    recorded("wrong")
    recorded("elsewhere")
    promote(store, folder("wrong"), "head")
    Registry(store.root).point("head", CHAMPION, 1)
    done = promote(store, folder("elsewhere"), "head")
    lineage = Lineage.of(store, store.find("evaluate", Path(folder("elsewhere")).name))
    rival = Lineage.of(store, store.find("evaluate", Path(folder("wrong")).name))
    assert lineage.test_digest() != rival.test_digest()
    test, heads = lineage.test_pairs(store), [read_head(found.finetune.path) for found in (lineage, rival)]
    mine, theirs = (pair_outcomes(head.score(test.chosen), head.score(test.rejected)) for head in heads)
    expected = compare_paired(mine, theirs, test.groups, confidence=0.95, resamples=100, seed=0)
    assert (done.lead, (done.lead_low, done.lead_high)) == (expected.lead, expected.interval)
    assert done.champion


def test_on_other_features_the_stored_scores_of_the_same_pairs_count(ready):
    store, folder, recorded = ready
    recorded("wrong")
    recorded("other layer")
    promote(store, folder("wrong"), "head")
    Registry(store.root).point("head", CHAMPION, 1)
    done = promote(store, folder("other layer"), "head")
    assert (done.champion, done.against) == (True, "1")


def test_nothing_in_common_is_refused_and_nothing_is_written(ready):
    store, folder, recorded = ready
    recorded("right")
    recorded("all other")
    promote(store, folder("right"), "head")
    with pytest.raises(ValueError, match="got version 1 of head, whose pairs and features are both others; evaluate"):
        promote(store, folder("all other"), "head")
    assert len(Registry(store.root).versions("head")) == 1


def test_a_run_is_found_by_each_of_its_names(ready):
    store, _, recorded = ready
    run = recorded("right")
    for name in (run.tracker.remote_id, run.tracker.run_id):
        assert promote(store, name, "head", dry_run=True).champion


@pytest.mark.parametrize("run", ["no-such-run", "x' or '1'='1", "../evaluate"])
def test_a_run_that_is_not_there_is_refused(ready, run):
    store, _, recorded = ready
    recorded("right")
    with pytest.raises(ValueError, match="must name a recorded run with an evaluation, got .*coala replay"):
        promote(store, run, "head")


def test_a_head_that_no_run_recorded_is_refused(ready):
    store, folder, _ = ready
    with pytest.raises(ValueError, match="as a model in MLflow at sqlite.*got none; make it with `coala run`"):
        promote(store, folder("right"), "head")


@pytest.mark.parametrize("name", ["", "../head", "a/b", "head:1", "x" * 101])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must be 1 to 100 letters, digits, spaces or _.-, got"):
        promote(Store(tmp_path), "run", name)


def test_a_server_that_is_not_there_is_one_sentence(ready, monkeypatch):
    store, folder, _ = ready
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="needs MLflow at http://127.0.0.1:9, got .*; start the server"):
        promote(store, folder("right"), "head")
