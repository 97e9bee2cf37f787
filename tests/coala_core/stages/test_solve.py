"""Which head of the path is kept, what its card says, and that seeds fix its bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose, assert_array_equal

from coala_core.features import read_pairs, stack_rows
from coala_core.heads import read_head
from coala_core.metrics import pair_accuracy
from coala_core.stages import embed, evaluate, finetune, solve, split, triplets
from coala_core.stages.solve import choose_solution
from coala_core.storage import Store
from tests.coala_core.stages.conftest import Chain, Made, make_features
from tests.dense import gated_score
from tests.lessons import digests, lesson, quick_config


def rows(*entries: tuple[int, float]) -> list[dict[str, Any]]:
    """Rows of a path, the largest weight first, from neurons and validation accuracy."""
    return [{"neurons": neurons, "validation_accuracy": accuracy} for neurons, accuracy in entries]


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        (rows((2, 0.6), (4, 0.7), (8, 0.65)), 1),
        (rows((2, 0.7), (4, 0.7), (8, 0.7)), 0),  # of equals the largest weight
        (rows((0, 0.9), (0, 0.9), (1, 0.4)), 2),  # a head without neurons orders nothing
        (rows((0, 0.5), (3, 0.5), (4, 0.5)), 1),
        (rows((0, 0.5), (0, 0.5)), 0),
    ],
)
def test_the_best_on_validation_is_chosen(path: list[dict[str, Any]], chosen: int) -> None:
    assert choose_solution(path) == chosen


def test_the_path_s_accuracies_are_those_of_its_kept_head(chain: Chain) -> None:
    path = json.loads((chain.solve.path / "path.json").read_text())
    kept = path[choose_solution(path)]
    pairs = read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")
    head = read_head(chain.solve.path)
    for name in ("train", "validation"):
        accuracy = pair_accuracy(head.score(pairs[name].chosen), head.score(pairs[name].rejected)).accuracy
        assert kept[f"{name}_accuracy"] == chain.solve.report[f"{name}_accuracy"] == accuracy
    assert [row["share"] for row in path] == pytest.approx([0.4, 0.1])


def test_the_reported_bounds_agree_with_each_other_and_with_the_stored_head(chain: Chain) -> None:
    report, config = chain.solve.report, chain.config.solve
    features, labels = stack_rows(
        read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")["train"]
    )
    misfit = read_head(chain.solve.path).score(features) - labels
    # Weight decay is left out, so the squared loss alone stays below the network's objective.
    assert 0.5 * float(misfit @ misfit) <= report["network_objective"] * (1 + 1e-4)
    assert_allclose(report["gap"], (report["upper_bound"] - report["lower_bound"]) / report["upper_bound"], rtol=1e-6)
    assert report["status"] == "CONVERGED"
    assert abs(report["gap"]) < config.tolerance
    assert report["cone_violation"] <= config.max_cone_violation


def test_the_card_names_what_the_head_takes(chain: Chain) -> None:
    card = json.loads((chain.solve.path / "head.json").read_text())
    assert (card["phase"], card["features"]) == (1, 32)
    expected = {"model": "llama", "layer": 2, "depth": 4, "pooling": "mean", "hidden_size": 32, "max_tokens": 2048}
    assert {name: card["embed"][name] for name in expected} == expected
    assert card["embed"]["model_fingerprint"] == chain.embed.report["model_fingerprint"]


def test_the_same_seeds_in_another_store_give_the_same_bytes(chain: Chain, second_chain: Chain) -> None:
    assert chain.store.root != second_chain.store.root
    for stage in ("triplets", "split", "embed", "solve", "finetune", "evaluate"):
        ours, theirs = getattr(chain, stage), getattr(second_chain, stage)
        assert digests(ours.path) == digests(theirs.path), stage
        assert ours.sha256 == theirs.sha256


def test_another_split_seed_keeps_the_features_and_moves_the_head(chain: Chain) -> None:
    config = chain.config.split.model_copy(update={"seed": 5})
    other = split.run(chain.store, config, chain.triplets)
    assert embed.run(chain.store, chain.config.embed, chain.triplets) == chain.embed
    head = solve.run(chain.store, chain.config.solve, chain.embed, other)
    assert digests(head.path)["head.safetensors"] != digests(chain.solve.path)["head.safetensors"]


def test_another_gate_seed_moves_the_head(chain: Chain) -> None:
    config = chain.config.solve.model_copy(update={"seed": 5})
    head = solve.run(chain.store, config, chain.embed, chain.split)
    assert digests(head.path)["head.safetensors"] != digests(chain.solve.path)["head.safetensors"]


def test_features_of_other_pairs_are_refused(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "half.jsonl"
    path.write_text("".join(json.dumps(lesson(number)) + "\n" for number in range(12)))
    config = quick_config(chain.store.root, path, Path(chain.config.embed.model))
    half = triplets.run(chain.store, config.triplets)
    features = embed.run(chain.store, config.embed, half)
    with pytest.raises(ValueError, match="embeddings and split of the same pairs, got 36 and 72 pairs .*'lesson-00012"):
        solve.run(chain.store, config.solve, features, chain.split)


def test_a_store_without_the_triplets_is_refused(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold the triplets artifact .*, got nothing; run the triplets stage"):
        solve.run(Store(tmp_path), chain.config.solve, chain.embed, chain.split)


@pytest.mark.parametrize(("layer", "pooling"), [(3, "mean"), (5, "last"), (5, "mean+last")])
def test_the_head_is_fitted_on_the_stored_layer_and_pooling_asked_for(made: Made, layer: int, pooling: Any) -> None:
    config = made.config.solve.model_copy(update={"layer": layer, "pooling": pooling})
    solved = solve.run(made.store, config, made.embed, made.split)
    card = json.loads((solved.path / "head.json").read_text())
    assert card["features"] == (12 if pooling == "mean+last" else 6)
    assert card["embed"] == {
        "model": "by hand",
        "model_fingerprint": "0f0f",
        "layer": layer,
        "depth": 9,
        "hidden_size": 6,
        "has_chat_template": False,
        "pooling": pooling,
        "max_tokens": 99,
    }
    train = read_pairs(made.embed.path, made.split.path, made.triplets.path, layer, pooling)["train"]
    head = read_head(solved.path)
    accuracy = pair_accuracy(head.score(train.chosen), head.score(train.rejected)).accuracy
    assert solved.report["train_accuracy"] == accuracy > 0.6


def test_an_empty_layer_and_pooling_are_the_first_stored_ones(made: Made) -> None:
    empty = solve.run(made.store, made.config.solve, made.embed, made.split)
    filled = made.config.solve.model_copy(update={"layer": 3, "pooling": "last"})
    assert solve.run(made.store, filled, made.embed, made.split) == empty
    assert (empty.manifest["config"]["layer"], empty.manifest["config"]["pooling"]) == (3, "last")
    other = make_features(made.store, made.triplets, layers=(5, 3), poolings=("mean",))
    config = solve.plan(made.store, made.config.solve, other, made.split).config
    assert (config["layer"], config["pooling"]) == (5, "mean")


@pytest.mark.slow
def test_a_sweep_over_layers_and_poolings_makes_heads_only(made: Made) -> None:
    stages = ("triplets", "split", "embed")
    before = {path: path.stat().st_mtime_ns for stage in stages for path in (made.store.root / stage).rglob("*")}
    asked = [{"layer": 3}, {"layer": 5}, {"layer": 3, "pooling": "mean+last"}]
    configs = [made.config.solve.model_copy(update=settings) for settings in asked]
    solved = [solve.run(made.store, config, made.embed, made.split) for config in configs]
    assert len({artifact.key for artifact in solved}) == 3
    assert len({digests(artifact.path)["head.safetensors"] for artifact in solved}) == 3
    assert {artifact.manifest["inputs"]["embed"]["key"] for artifact in solved} == {made.embed.key}
    after = {path: path.stat().st_mtime_ns for stage in stages for path in (made.store.root / stage).rglob("*")}
    assert after == before


@pytest.mark.parametrize(
    ("poolings", "changes", "message"),
    [
        (("mean",), {"layer": 4}, r"one of the stored layers 3, 5, got 4; .* add it to `embed\.layers`"),
        (("mean",), {"pooling": "last"}, r"made of the stored poolings mean, got last; .* to `embed\.poolings`"),
        (("mean",), {"pooling": "mean+last"}, r"stored poolings mean, got mean\+last; choose one of them or add what"),
        (("last",), {"pooling": "mean+last"}, r"stored poolings last, got mean\+last"),
    ],
)
def test_what_is_not_stored_is_refused_by_the_plan(
    made: Made, poolings: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    features = make_features(made.store, made.triplets, layers=(3, 5), poolings=poolings)
    config = made.config.solve.model_copy(update=changes)
    for door in (solve.plan, solve.run):
        with pytest.raises(ValueError, match=message):
            door(made.store, config, features, made.split)
    assert not (made.store.root / "solve").exists()


def test_features_of_an_earlier_version_are_refused(made: Made) -> None:
    manifest = made.embed.path / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["config"]["layers"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"must state the setting `embed\.layers`, got .* run the embed stage again"):
        solve.plan(made.store, made.config.solve, made.embed, made.split)


@pytest.mark.slow
def test_a_gated_head_goes_through_the_later_stages(chain: Chain, tmp_path: Path) -> None:
    for stage in ("triplets", "split", "embed"):
        shutil.copytree(chain.store.root / stage, tmp_path / stage)
    store, config = Store(tmp_path), chain.config.solve.model_copy(update={"activation": "gated_relu"})
    solved = solve.run(store, config, chain.embed, chain.split)
    tuned = finetune.run(store, chain.config.finetune, solved)
    judged = evaluate.run(store, chain.config.evaluate, tuned)
    assert solved.report["status"] == "CONVERGED"
    assert (solved.report["cone_violation"], solved.key != chain.solve.key) == (0.0, True)
    first, second = read_head(solved.path), read_head(tuned.path)
    assert first.gate_weight is not None
    assert_array_equal(first.gate_weight, second.gate_weight)
    pairs = read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")["test"]
    accuracy = pair_accuracy(gated_score(second, pairs.chosen), gated_score(second, pairs.rejected)).accuracy
    assert judged.report["head"]["accuracy"] == accuracy


def test_pairwise_rows_give_a_head_of_their_own(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.store.root / "triplets", tmp_path / "triplets")
    config = chain.config.solve.model_copy(update={"rows": "pairwise"})
    solved = solve.run(Store(tmp_path), config, chain.embed, chain.split)
    pairs = read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")["train"]
    head = read_head(solved.path)
    misfit = head.score(pairs.chosen) - head.score(pairs.rejected) - 1.0
    assert solved.report["status"] == "CONVERGED"
    assert (solved.key != chain.solve.key, solved.report["upper_bound"] < 0.5 * len(pairs)) == (True, True)
    # The weight decay is left out, so the squared loss alone stays below the network's objective.
    assert 0.5 * float(misfit @ misfit) <= solved.report["network_objective"] * (1 + 1e-4)
