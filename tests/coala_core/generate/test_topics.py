"""The topics file and what is drawn from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from coala_core.generate.topics import Scenario, Topics, draw_scenario, load_topics

SMALL = {"fields": {"science": ["rivers", "stars"], "music": ["jazz"]}, "moods": ["calm", "bored"]}


TOPICS = load_topics("builtin")


def draw(index: int, seed: int = 0) -> Scenario:
    return draw_scenario(TOPICS, seed, index, (2, 4), (0.2, 0.9))


def test_the_shipped_file_has_the_fields_of_the_built_in_conversations() -> None:
    assert len(TOPICS.fields) == 11
    assert min(len(of_field) for of_field in TOPICS.fields.values()) >= 8
    assert len(TOPICS.moods) >= 5
    assert TOPICS.phrases.refusal and TOPICS.phrases.student_as_tutor and TOPICS.phrases.tutor_as_student
    assert not [t for of_field in TOPICS.fields.values() for t in of_field if len(t.split()) > 6]


def test_a_draw_depends_on_seed_and_index_only() -> None:
    forwards = [draw(index) for index in range(20)]
    assert [draw(index) for index in reversed(range(20))] == forwards[::-1]
    assert len({scenario.model_dump_json(exclude={"index"}) for scenario in forwards}) == 20
    assert [draw(index, seed=1) for index in range(20)] != forwards


def test_everything_is_drawn_and_stays_in_range() -> None:
    scenarios = [draw(index) for index in range(1000)]
    assert {scenario.field for scenario in scenarios} == set(TOPICS.fields)
    assert {scenario.mood for scenario in scenarios} == set(TOPICS.moods)
    assert all(scenario.topic in TOPICS.fields[scenario.field] for scenario in scenarios)
    lengths = Counter(scenario.exchanges for scenario in scenarios)
    # Each third of 1000 draws: 333 with a standard deviation of 15.
    assert set(lengths) == {2, 3, 4} and all(270 < count < 400 for count in lengths.values())
    temperatures = [scenario.temperature for scenario in scenarios]
    assert 0.2 <= min(temperatures) < 0.22 and 0.88 < max(temperatures) <= 0.9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fields: [", "must be YAML in UTF-8, got"),
        ("", r"must hold `fields` .* got the file: Input should be a valid dictionary"),
        ("fields: {}\nmoods: [calm]", "fields: Dictionary should have at least 1 item"),
        ("fields: {music: []}\nmoods: [calm]", r"fields\.music: .* at least 1 item"),
        ("fields: {music: [jazz]}\nmoods: [true]", r"moods\.0: Input should be a valid string \(got 'True'\)"),
        ("fields: {music: [jazz, Jazz]}\nmoods: [calm]", "`music` must not name anything twice"),
        ("fields: {music: ['  ']}\nmoods: [calm]", r"fields\.music\.0: String should have at least 1 character"),
        ("fields: {music: [jazz]}\nmoods: [calm]\nmodds: [x]", "modds: Extra inputs are not permitted"),
        ("fields: {music: [jazz]}\nmoods: [calm]\nphrases: {refusals: [no]}", r"phrases\.refusals: Extra inputs"),
    ],
)
def test_a_refused_file_is_named_with_its_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_topics(str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="got no file there; correct the path"):
        load_topics(str(tmp_path / "none.yaml"))
    with pytest.raises(FileNotFoundError, match="must name a file, got a folder"):
        load_topics(str(tmp_path))


def test_phrases_are_optional() -> None:
    assert Topics.model_validate(SMALL).phrases.refusal == ()
