import re

from tasks import measures
from tasks.measures import compared_metrics, head_metrics

VERDICT = {"accuracy": 0.75, "wilson": [0.5, 0.9], "group_bootstrap": [0.6, 0.8], "ties": 1, "pairs": 12}
EVALUATE = {
    "groups": 4,
    "head": VERDICT,
    "margins": {"mean": 0.25},
    "metrics": {"probability_margin": 0.55},
    "baselines": {"phase_one_head": VERDICT | {"accuracy": 0.5, "lead": 0.25, "lead_interval": [-0.1, 0.5]}},
}
REPORTS = {
    "triplets": {"triplets": 72, "conversations": 24, "rows_rejected": 2},
    "embed": {"tokens": 4000, "equal_feature_share": 0.25},
    "solve": {"gap": 1e-4, "sweeps": 50, "neurons": 7, "lasso_weight": 0.5, "cone_violation": 1e-5},
    "finetune": {"kept_epoch": 2, "eval_loss": 0.6, "eval_rewards/accuracies": 0.7},
    "evaluate": EVALUATE,
}


def test_a_whole_run_is_compared_by_these():
    assert compared_metrics(REPORTS, {"solve": 1.5}) == {
        "data/pairs": 72,
        "data/conversations": 24,
        "data/rejected_rows": 2,
        "embed/tokens": 4000,
        "embed/equal_features": 0.25,
        "solve/gap": 1e-4,
        "solve/sweeps": 50,
        "solve/neurons": 7,
        "solve/lasso_weight": 0.5,
        "solve/cone_violation": 1e-5,
        "finetune/kept_epoch": 2,
        "validation/loss": 0.6,
        "validation/accuracy": 0.7,
        "test/accuracy": 0.75,
        "test/accuracy_low": 0.5,
        "test/accuracy_high": 0.9,
        "test/group_low": 0.6,
        "test/group_high": 0.8,
        "test/ties": 1,
        "test/pairs": 12,
        "test/groups": 4,
        "test/reward_margin": 0.25,
        "test/probability_margin": 0.55,
        "baseline/phase_one_head": 0.5,
        "lead/phase_one_head": 0.25,
        "lead/phase_one_head_low": -0.1,
        "lead/phase_one_head_high": 0.5,
        "seconds/solve": 1.5,
    }


def test_what_a_run_did_not_do_and_what_a_stage_could_not_say_is_left_out():
    assert compared_metrics({}, {}) == {}
    one_group = VERDICT | {"group_bootstrap": None}
    assert "test/group_low" not in head_metrics(EVALUATE | {"head": one_group})
    assert compared_metrics({"embed": {"tokens": 9}}, {}) == {"embed/tokens": 9}


def test_the_head_of_phase_one_has_the_same_names():
    assert head_metrics(EVALUATE, "phase_one_head") == head_metrics(EVALUATE) | {"test/accuracy": 0.5}


def test_the_table_names_every_metric():
    named = set(re.findall(r"``([a-z_]+/[A-Za-z_]+)``", measures.__doc__))
    for name in compared_metrics(REPORTS, {"solve": 1.5}):
        general = re.sub("phase_one_head", "NAME", name).replace("seconds/solve", "seconds/STAGE")
        assert general in named or general in {"solve/neurons", "solve/lasso_weight", "solve/cone_violation"}, name
