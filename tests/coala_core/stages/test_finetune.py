"""Phase II as an artifact: the first layer stays, the kept epoch is told, the card grows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from coala_core.features import read_pairs
from coala_core.heads import read_head
from coala_core.metrics import pair_metrics
from coala_core.stages import finetune, solve
from tests.coala_core.stages.conftest import Chain, Made


def test_only_the_last_layer_moves(chain: Chain) -> None:
    config = chain.config.finetune.model_copy(update={"keep": "last"})
    tuned = finetune.run(chain.store, config, chain.solve)
    before, after = read_head(chain.solve.path), read_head(tuned.path)
    assert_array_equal(before.first_weight, after.first_weight)
    assert_array_equal(before.first_bias, after.first_bias)
    assert (before.second_weight != after.second_weight).any()


def test_the_history_has_every_epoch_and_the_report_is_the_kept_one(chain: Chain) -> None:
    history = json.loads((chain.finetune.path / "history.json").read_text())
    assert [row["epoch"] for row in history] == list(range(13))
    report = chain.finetune.report
    kept = min(range(13), key=lambda epoch: history[epoch]["eval_loss"])
    assert report["kept_epoch"] == kept
    assert {name: report[name] for name in history[kept] if name != "epoch"} == {
        name: value for name, value in history[kept].items() if name != "epoch"
    }


def test_the_reported_metrics_are_those_of_the_stored_head(chain: Chain) -> None:
    splits = read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")
    pairs = splits["validation"].sorted_by_id()
    head = read_head(chain.finetune.path)
    measured = pair_metrics(head.score(pairs.chosen), head.score(pairs.rejected), chain.config.finetune.beta)
    # The stored layer is rounded to float32.
    assert abs(measured["rewards/margins"] - chain.finetune.report["eval_rewards/margins"]) < 1e-5
    assert measured["rewards/accuracies"] == chain.finetune.report["eval_rewards/accuracies"]


def test_the_card_keeps_what_phase_one_wrote(chain: Chain) -> None:
    before, after = (json.loads((a.path / "head.json").read_text()) for a in (chain.solve, chain.finetune))
    assert (after["phase"], after["beta"]) == (2, chain.config.finetune.beta)
    assert after["embed"] == before["embed"]
    assert after["solve"] == before["solve"]
    assert after["finetune"]["kept_epoch"] == chain.finetune.report["kept_epoch"]


def test_every_setting_is_part_of_the_key(chain: Chain) -> None:
    changes = [
        {"loss": "pointwise"},
        {"beta": 2.0},
        {"gamma": 0.0},
        {"ridge": 0.1},
        {"learning_rate": 0.1},
        {"weight_decay": 0.1},
        {"epochs": 13},
        {"batch_size": 8},
        {"keep": "last"},
        {"seed": 1},
    ]
    assert {name for change in changes for name in change} == set(type(chain.config.finetune).model_fields)
    configs = [chain.config.finetune.model_copy(update=change) for change in changes]
    keys = {finetune.plan(chain.store, config, chain.solve).key for config in configs}
    assert len(keys | {chain.finetune.key}) == len(changes) + 1


@pytest.mark.parametrize(("layer", "pooling"), [(5, "last"), (3, "mean+last")])
def test_the_features_are_those_that_the_head_was_fitted_on(made: Made, layer: int, pooling: Any) -> None:
    config = made.config.solve.model_copy(update={"layer": layer, "pooling": pooling})
    tuned = finetune.run(made.store, made.config.finetune, solve.run(made.store, config, made.embed, made.split))
    pairs = read_pairs(made.embed.path, made.split.path, made.triplets.path, layer, pooling)["validation"]
    head = read_head(tuned.path)
    measured = pair_metrics(head.score(pairs.chosen), head.score(pairs.rejected), made.config.finetune.beta)
    assert abs(measured["rewards/margins"] - tuned.report["eval_rewards/margins"]) < 1e-5
    card = json.loads((tuned.path / "head.json").read_text())
    assert (card["embed"]["layer"], card["embed"]["pooling"]) == (layer, pooling)


def test_a_head_of_an_earlier_version_is_refused(made: Made) -> None:
    solved = solve.run(made.store, made.config.solve, made.embed, made.split)
    content = solved.manifest
    del content["config"]["layer"]
    (solved.path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"must state the setting `solve\.layer`, got .* run the solve stage again"):
        finetune.run(made.store, made.config.finetune, solved)
