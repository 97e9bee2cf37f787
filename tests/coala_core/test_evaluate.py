"""The verdict, number by number, and proof that test pairs choose nothing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from coala_core.config import EvaluateConfig
from coala_core.cvxnn.network import Head
from coala_core.evaluate import LINEAR_PROBE, LONGER_RESPONSE, PHASE_ONE_HEAD, evaluate_head
from coala_core.metrics import group_bootstrap_interval, wilson_interval
from coala_core.pairs import PairFeatures

CONFIG = EvaluateConfig(resamples=300)


def make_pairs(name, n=40, seed=0):
    """Gaussian pairs in groups of four, chosen shifted by 0.7 in every feature."""
    rng = np.random.default_rng(seed)
    return PairFeatures(
        pair_ids=[f"{name}-{i:03d}" for i in range(n)],
        groups=[f"{name}-{i // 4}" for i in range(n)],
        chosen=(rng.normal(size=(n, 2)) + 0.7).astype(np.float32),
        rejected=rng.normal(size=(n, 2)).astype(np.float32),
        chosen_length=rng.integers(1, 9, size=n),
        rejected_length=rng.integers(1, 9, size=n),
    )


def make_head(second_weight):
    """Two neurons, (x_1)_+ and (x_2)_+, with the given last layer."""
    return Head(np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32), np.array(second_weight, dtype=np.float32))


@pytest.fixture(scope="module")
def others():
    """Training and validation pairs."""
    return make_pairs("train", seed=1), make_pairs("validation", n=20, seed=2)


@pytest.fixture
def four_pairs():
    """Four pairs that can be scored by hand; row order is not id order."""
    return PairFeatures(
        pair_ids=["d", "a", "b", "c"],
        groups=["y", "x", "x", "y"],
        chosen=np.array([[1, 1], [3, 0], [-5, 2], [0, 1]], dtype=np.float32),
        rejected=np.array([[2, 1], [1, 0], [-4, 2], [0, -3]], dtype=np.float32),
        chosen_length=np.array([9, 5, 5, 5]),
        rejected_length=np.array([1, 5, 6, 7]),
    )


def test_a_gated_head_is_scored_behind_its_gates(others, four_pairs):
    # Neurons x_1 and x_2 where x_1 >= 0, score = g_1 + 2 g_2. Pairs a, b, c, d: chosen 3, 0 (closed), 2, 3;
    # rejected 1, 0 (closed), -6, 4: two wins, a tie, a loss.
    gated = replace(make_head([1, 2]), gate_weight=np.array([[1.0, 0.0]] * 2), gate_bias=np.zeros(2))
    evaluation = evaluate_head(gated, gated, *others, four_pairs, CONFIG, beta=1)
    assert [(pair.chosen_score, pair.rejected_score) for pair in evaluation.pairs] == [(3, 1), (0, 0), (2, -6), (3, 4)]
    assert evaluation.head.accuracy.accuracy == 2.5 / 4


def test_every_number_by_hand(others, four_pairs):
    # Head: score = (x_1)_+ + 2 (x_2)_+. Pairs a, b, c, d: chosen 3, 4, 2, 3; rejected 1, 4, 0, 4.
    # Differences 2, 0, 2, -1: two wins and a tie. Phase I: score = -(x_1)_+: a -3 < -1, b tie, c tie, d -1 > -2.
    evaluation = evaluate_head(make_head([1, 2]), make_head([-1, 0]), *others, four_pairs, CONFIG, beta=3)
    assert [pair.pair_id for pair in evaluation.pairs] == ["a", "b", "c", "d"]
    assert [pair.group for pair in evaluation.pairs] == ["x", "x", "y", "y"]
    assert [(p.chosen_score, p.rejected_score, p.margin) for p in evaluation.pairs] == [
        (3, 1, 6),
        (4, 4, 0),
        (2, 0, 6),
        (3, 4, -3),
    ]
    head = evaluation.head
    assert (head.accuracy.accuracy, head.accuracy.successes, head.accuracy.ties, head.accuracy.pairs) == (
        2.5 / 4,
        2.5,
        1,
        4,
    )
    assert head.wilson == wilson_interval(2.5, 4, 0.95)
    assert head.group_bootstrap == group_bootstrap_interval([1, 0.5, 1, 0], list("xxyy"), 0.95, 300, seed=0)
    # rewards are 3 h: margins 6, 0, 6, -3 with mean 9/4, median 3
    assert (evaluation.margins.mean, evaluation.margins.min, evaluation.margins.median) == (2.25, -3, 3)
    assert evaluation.metrics["rewards/margins"] == 2.25
    probabilities = [1 / (1 + math.exp(-difference)) for difference in (2, 0, 2, -1)]
    assert evaluation.metrics["probability_margin"] == pytest.approx(sum(probabilities) / 4)
    # lengths a 5 = 5, b 5 < 6, c 5 < 7, d 9 > 1: one win and a tie
    longer = evaluation.baselines[LONGER_RESPONSE]
    assert (longer.verdict.accuracy.successes, longer.verdict.accuracy.ties) == (1.5, 1)
    assert longer.lead == 0.25
    # outcomes of the head minus outcomes of the length rule: 1 - 1/2, 1/2 - 0, 1 - 0, 0 - 1
    assert longer.lead_interval == group_bootstrap_interval([0.5, 0.5, 1, -1], list("xxyy"), 0.95, 300, seed=0)
    phase_one = evaluation.baselines[PHASE_ONE_HEAD]
    assert (phase_one.verdict.accuracy.successes, phase_one.verdict.accuracy.ties) == (2, 2)
    assert phase_one.verdict.wilson == wilson_interval(2, 4, 0.95)
    assert phase_one.lead == 0.125
    assert (evaluation.groups, evaluation.beta, evaluation.confidence) == (2, 3, 0.95)


def test_probe_scores_the_test_pairs_as_its_own_direction_does(others):
    from coala_core.baselines import fit_linear_probe

    test = make_pairs("test", seed=3)
    evaluation = evaluate_head(make_head([1, 1]), make_head([1, 0]), *others, test, CONFIG, beta=1)
    direction = fit_linear_probe(*others).direction
    wins = sum(float((w - low) @ direction) > 0 for w, low in zip(test.chosen, test.rejected, strict=True))
    assert evaluation.baselines[LINEAR_PROBE].verdict.accuracy.successes == wins
    assert wins / len(test) > 0.6


def test_no_test_pair_influences_a_choice(others):
    test = make_pairs("test", seed=3)
    reversed_test = replace(test, chosen=test.rejected, rejected=test.chosen)
    heads = make_head([1, 1]), make_head([1, 0])
    forward = evaluate_head(*heads, *others, test, CONFIG, beta=1)
    backward = evaluate_head(*heads, *others, reversed_test, CONFIG, beta=1)
    assert forward.probe_strength == backward.probe_strength
    for name in (LINEAR_PROBE, PHASE_ONE_HEAD):
        accuracies = [e.baselines[name].verdict.accuracy.accuracy for e in (forward, backward)]
        assert sum(accuracies) == pytest.approx(1)


def test_row_order_changes_nothing(others):
    test = make_pairs("test", seed=3)
    order = np.random.default_rng(4).permutation(len(test))
    shuffled = PairFeatures(
        [test.pair_ids[i] for i in order],
        [test.groups[i] for i in order],
        *(getattr(test, name)[order] for name in ("chosen", "rejected", "chosen_length", "rejected_length")),
    )
    heads = make_head([1, 1]), make_head([1, 0])
    first = evaluate_head(*heads, *others, test, CONFIG, beta=1)
    assert first == evaluate_head(*heads, *others, shuffled, CONFIG, beta=1)


def test_single_group_has_no_bootstrap(others):
    test = replace(make_pairs("test", n=6), groups=["one"] * 6)
    evaluation = evaluate_head(make_head([1, 1]), make_head([1, 0]), *others, test, CONFIG, beta=1)
    assert evaluation.head.group_bootstrap is None
    assert evaluation.baselines[LINEAR_PROBE].lead_interval is None
    assert evaluation.report()["head"]["group_bootstrap"] is None


def test_head_without_neurons_ties_everywhere(others):
    empty = Head(np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))
    evaluation = evaluate_head(empty, empty, *others, make_pairs("test"), CONFIG, beta=1)
    assert (evaluation.head.accuracy.accuracy, evaluation.head.accuracy.ties) == (0.5, 40)


def test_report_and_table_are_plain_json(others, four_pairs):
    evaluation = evaluate_head(make_head([1, 2]), make_head([-1, 0]), *others, four_pairs, CONFIG, beta=3)
    report = json.loads(json.dumps(evaluation.report(), allow_nan=False))
    assert report == evaluation.report()
    assert report["head"]["accuracy"] == 0.625
    assert set(report["baselines"]) == {LONGER_RESPONSE, LINEAR_PROBE, PHASE_ONE_HEAD}
    assert report["baselines"][PHASE_ONE_HEAD]["lead"] == 0.125
    assert json.loads(json.dumps(evaluation.table()))[3] == {
        "pair_id": "d",
        "group": "y",
        "chosen_score": 3,
        "rejected_score": 4,
        "margin": -3,
    }


def test_progress_counts_scorers(others, four_pairs):
    calls = []
    heads = make_head([1, 2]), make_head([-1, 0])
    evaluate_head(*heads, *others, four_pairs, CONFIG, beta=3, progress=lambda *call: calls.append(call))
    assert calls == [(done, 4, "scorers") for done in (1, 2, 3, 4)]


def test_bad_input_is_refused_in_one_sentence(others, four_pairs):
    train, validation = others
    head = make_head([1, 1])
    with pytest.raises(ValueError, match=r"`evaluate_head\(test=...\)` must share no group with `train`"):
        evaluate_head(head, head, train, validation, train, CONFIG, beta=1)
    with pytest.raises(ValueError, match=r"beta=.* above 0, got 0"):
        evaluate_head(head, head, train, validation, four_pairs, CONFIG, beta=0)
    wide = Head(np.ones((1, 3), dtype=np.float32), np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32))
    with pytest.raises(ValueError, match=r"`evaluate_head\(train=...\)` must have the 3 features .* got 2"):
        evaluate_head(head, wide, train, validation, four_pairs, CONFIG, beta=1)
