"""What the two agents are told, and the dialogue as each of them sees it."""

from __future__ import annotations

from collections.abc import Sequence

from coala_core.generate.topics import Scenario

REVISION = 1
"""Raised when the wording changes: other prompts, other conversations."""

Message = dict[str, str]

_STUDENT = (
    "You are a {mood} student who prepares for a quiz on {topic}. You ask your tutor one short question at a time. "
    "You only ask, you never answer."
)
_TUTOR = (
    "You are a tutor who helps a student prepare for a quiz on {topic}. Answer the question that was asked, directly, "
    "in two or three short sentences."
)
_FIRST = "Begin with {opening}. Ask your first question about {topic}."
_NEXT = "{reply}\n\nBegin with {opening}. Ask your next question about {topic}."

OPENINGS = ("What", "How", "Why", "When", "Where", "Which", "Can", "Is")
"""Words one of which a student is asked to begin with, as small models otherwise ask the same again and again."""

# Small models need to be shown what a turn looks like; three lessons of two exchanges cost few tokens.
_LESSONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "spiders",
        (
            "How many legs does a spider have?",
            "A spider has eight legs. That tells it apart from insects, which have six.",
            "Why do spiders spin webs?",
            "Most spiders spin webs to catch insects. The threads are sticky, so the prey cannot get away.",
        ),
    ),
    (
        "ratios",
        (
            "What does a ratio tell us?",
            "A ratio compares two amounts. A ratio of 2 to 1 means that there is twice as much of the first.",
            "How do I simplify the ratio 10 to 4?",
            "Divide both numbers by 2, which they have in common. The ratio 10 to 4 becomes 5 to 2.",
        ),
    ),
    (
        "castles",
        (
            "Why did people build castles?",
            "A castle kept a lord and his soldiers safe. Whoever held it also held the roads and fields around it.",
            "Can a castle burn down?",
            "Early castles could, because they were made of wood. Later ones had thick walls of stone.",
        ),
    ),
)


def student_chat(scenario: Scenario, turns: Sequence[str], opening: str) -> list[Message]:
    """Messages that ask the student for the next turn; the tutor is the other side.

    Parameters
    ----------
    scenario : Scenario
        Topic and mood.
    turns : sequence of str
        The dialogue so far, the student first; its length is even.
    opening : str
        Word to begin the question with, of `OPENINGS`.
    """
    chat = [_message("system", _STUDENT.format(mood=scenario.mood, topic=scenario.topic))]
    for topic, lesson in _LESSONS:
        chat += _seen_by_student(topic, lesson[:3])
    return chat + _seen_by_student(scenario.topic, turns, opening)


def tutor_chat(scenario: Scenario, turns: Sequence[str]) -> list[Message]:
    """Messages that ask the tutor for the next turn; the student is the other side.

    Parameters
    ----------
    scenario : Scenario
        Topic.
    turns : sequence of str
        The dialogue so far, the student first; its length is odd.
    """
    shown = [turn for _, lesson in _LESSONS for turn in lesson[:2]]
    chat = [_message("system", _TUTOR.format(topic=scenario.topic))]
    return chat + [_message("assistant" if at % 2 else "user", turn) for at, turn in enumerate([*shown, *turns])]


def _seen_by_student(topic: str, turns: Sequence[str], opening: str = "") -> list[Message]:
    """Give the student's turns to the assistant, and the tutor's, with what is asked next, to the user."""
    chat = []
    for at in range(0, len(turns) + 1, 2):
        asked = turns[at] if at < len(turns) else None
        task = _NEXT if at else _FIRST
        word = opening if asked is None else asked.split()[0]
        chat.append(_message("user", task.format(reply=turns[at - 1] if at else "", topic=topic, opening=word)))
        if asked is not None:
            chat.append(_message("assistant", asked))
    return chat


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
