import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from tasks.served_head import ServedHead
from tests.tasks.heads import EMBEDDING, head_in, small_head


@pytest.fixture
def served(tmp_path: Path) -> Any:
    folder = head_in(tmp_path).folder
    (folder / "embedding.json").write_text(json.dumps(EMBEDDING))
    model = ServedHead()
    model.load_context(SimpleNamespace(artifacts={"head": str(folder)}))
    return lambda rows: model.predict(None, pd.DataFrame(rows))


def test_features_are_scored_and_the_higher_score_is_preferred(served):
    chosen, rejected = np.eye(3), np.zeros((3, 3))
    rejected[2] = chosen[2]
    found = served({"chosen_features": chosen.tolist(), "rejected_features": rejected.tolist()})
    np.testing.assert_array_equal(found["chosen_score"], small_head(0).score(chosen))
    np.testing.assert_array_equal(found["rejected_score"], small_head(0).score(rejected))
    expected = np.where(found["chosen_score"] > found["rejected_score"], "chosen", "rejected")
    assert list(found["preferred"])[:2] == list(expected)[:2]
    assert found["preferred"][2] == "tie"


@pytest.mark.parametrize(
    ("rows", "came"),
    [
        ([{"prompt": "Why?", "chosen": "So."}], "got chosen, prompt; send one kind"),
        ([{"prompt": "Why?", "chosen": "a", "rejected": "b", "chosen_features": [0.5]}], "send one kind"),
        ([{"chosen_features": [0.5], "rejected_features": [0.5]}], "must have 3 columns"),
        ([{"prompt": 3, "chosen": "a", "rejected": "b"}], "must be text or messages.*row 0"),
    ],
)
def test_a_request_that_cannot_be_scored_is_told_why_in_a_sentence(served, rows, came):
    with pytest.raises(MlflowException, match=came) as refusal:
        served(rows)
    assert refusal.value.get_http_status_code() == 400
