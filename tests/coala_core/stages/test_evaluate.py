"""The verdict as an artifact, compared with the scores that lie beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from coala_core.features import read_pairs
from coala_core.heads import read_head
from coala_core.stages import evaluate, finetune, solve
from coala_core.storage import Store, open_artifact
from tests.coala_core.stages.conftest import Chain, Made


def test_the_scores_are_of_the_test_pairs_and_give_the_accuracy(chain: Chain) -> None:
    scores = pq.read_table(chain.evaluate.path / "scores.parquet").to_pylist()
    rows = pq.read_table(chain.split.path / "split.parquet").to_pylist()
    assert {row["pair_id"] for row in scores} == {row["pair_id"] for row in rows if row["split"] == "test"}
    won = sum(1.0 if row["margin"] > 0 else 0.5 if row["margin"] == 0 else 0.0 for row in scores)
    assert chain.evaluate.report["head"]["accuracy"] == pytest.approx(won / len(scores))
    assert chain.evaluate.report["groups"] == len({row["group"] for row in scores})


def test_the_longer_response_wins_as_often_as_the_texts_say(chain: Chain) -> None:
    texts = {
        row["pair_id"]: (len(row["chosen"][0]["content"]), len(row["rejected"][0]["content"]))
        for row in pq.read_table(chain.triplets.path / "triplets.parquet").to_pylist()
    }
    ids = pq.read_table(chain.evaluate.path / "scores.parquet")["pair_id"].to_pylist()
    won = sum(1.0 if texts[i][0] > texts[i][1] else 0.5 if texts[i][0] == texts[i][1] else 0.0 for i in ids)
    assert chain.evaluate.report["baselines"]["longer_response"]["accuracy"] == pytest.approx(won / len(ids))


def test_the_report_is_also_a_file(chain: Chain) -> None:
    assert json.loads((chain.evaluate.path / "evaluation.json").read_text()) == chain.evaluate.report
    assert chain.evaluate.report["beta"] == chain.config.finetune.beta


def test_a_store_that_lost_an_input_is_refused_with_the_stage_to_run(chain: Chain, tmp_path: Path) -> None:
    for stage in ("triplets", "split", "solve", "finetune"):
        shutil.copytree(chain.store.root / stage, tmp_path / stage)
    store = Store(tmp_path)
    tuned = open_artifact(tmp_path / "finetune" / chain.finetune.key, "finetune")
    with pytest.raises(ValueError, match="must hold the embed artifact .*, got nothing; run the embed stage again"):
        evaluate.run(store, chain.config.evaluate, tuned)


@pytest.mark.parametrize(("layer", "pooling"), [(5, "last"), (3, "mean+last")])
def test_the_margins_are_of_the_features_that_the_head_was_fitted_on(made: Made, layer: int, pooling: Any) -> None:
    config = made.config.solve.model_copy(update={"layer": layer, "pooling": pooling})
    solved = solve.run(made.store, config, made.embed, made.split)
    tuned = finetune.run(made.store, made.config.finetune, solved)
    verdict = evaluate.run(made.store, made.config.evaluate, tuned)
    test = read_pairs(made.embed.path, made.split.path, made.triplets.path, layer, pooling)["test"].sorted_by_id()
    scores = {row["pair_id"]: row for row in pq.read_table(verdict.path / "scores.parquet").to_pylist()}
    head = read_head(tuned.path)
    margins = head.score(test.chosen) - head.score(test.rejected)
    assert_allclose([scores[pair]["margin"] for pair in test.pair_ids], made.config.finetune.beta * margins, rtol=1e-4)
