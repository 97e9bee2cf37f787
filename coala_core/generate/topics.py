"""The topics file: fields of study with their topics, the student's moods, and phrases that give bad turns away."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

BUILTIN_TOPICS = "builtin"
_FILE = "topics.yaml"
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=200)]


class Phrases(BaseModel):
    """Phrases that give a bad turn away wherever they stand in it, in any case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refusal: tuple[_Phrase, ...] = ()
    """Of a turn that declines to answer or speaks of being a program."""
    student_as_tutor: tuple[_Phrase, ...] = ()
    """Of a student that speaks like a tutor."""
    tutor_as_student: tuple[_Phrase, ...] = ()
    """Of a tutor that speaks like a student."""


class Topics(BaseModel):
    """What conversations are about, and in which mood."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: Annotated[dict[_Text, Annotated[tuple[_Text, ...], Field(min_length=1)]], Field(min_length=1)]
    """Topics by field of study, in the order of the file."""
    moods: Annotated[tuple[_Text, ...], Field(min_length=1)]
    """Moods of the student."""
    phrases: Phrases = Phrases()
    """Phrases that give bad turns away."""

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        for name, values in {"moods": self.moods, **self.fields}.items():
            if len({value.casefold() for value in values}) < len(values):
                raise ValueError(f"`{name}` must not name anything twice, got {list(values)}; name each once")
        return self


class Scenario(BaseModel):
    """What one conversation is drawn to be."""

    model_config = ConfigDict(frozen=True)

    index: int
    """Number of the conversation, from 0."""
    field: str
    """Field of study."""
    topic: str
    """Topic of that field."""
    mood: str
    """Mood of the student."""
    exchanges: int
    """Student turns, each followed by a reply."""
    temperature: float
    """Sampling temperature of both agents."""


def load_topics(name: str) -> Topics:
    """Read a topics file.

    Parameters
    ----------
    name : str
        Path of a YAML file with the keys ``fields``, ``moods`` and, if wanted, ``phrases``; or "builtin".

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not YAML in UTF-8, or a key or value is refused; file and key are named.
    """
    try:
        content = yaml.safe_load(_text(name))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"`{name}` must be YAML in UTF-8, got {error}; write the file again") from error
    except IsADirectoryError as error:
        raise FileNotFoundError(f"`generate.topics={name}` must name a file, got a folder; name one in it") from error
    try:
        return Topics.model_validate(content)
    except ValidationError as error:
        offences = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']} (got {str(e['input'])[:80]!r})"
            for e in error.errors()
        )
        raise ValueError(
            f"`{name}` must hold `fields` (lists of topics), `moods` and, if wanted, `phrases`, got {offences}; "
            "correct these keys"
        ) from error


def _text(name: str) -> str:
    if name == BUILTIN_TOPICS:
        return (importlib.resources.files("coala_data") / _FILE).read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"`generate.topics={name}` must be a YAML file or `{BUILTIN_TOPICS}`, got no file there; correct the path"
        )
    return path.read_text(encoding="utf-8")


def draw_scenario(
    topics: Topics, seed: int, index: int, exchanges: tuple[int, int], temperatures: tuple[float, float]
) -> Scenario:
    """Draw what conversation `index` is: field, topic, mood, number of exchanges, temperature.

    The draw depends on the seed and the index alone, not on how many conversations there are or in which order
    they are made.

    Parameters
    ----------
    topics : Topics
        What there is to draw.
    seed, index : int
        At least 0.
    exchanges : (fewest, most)
        Both included.
    temperatures : (lowest, highest)
        Drawn evenly, to three decimals.
    """
    rng = np.random.default_rng([seed, index])
    field = list(topics.fields)[rng.integers(len(topics.fields))]
    return Scenario(
        index=index,
        field=field,
        topic=topics.fields[field][rng.integers(len(topics.fields[field]))],
        mood=topics.moods[rng.integers(len(topics.moods))],
        exchanges=int(rng.integers(exchanges[0], exchanges[1] + 1)),
        temperature=round(float(rng.uniform(*temperatures)), 3),
    )
