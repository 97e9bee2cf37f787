import pytest

from coala_core.sources import Fault, RowError
from tests.coala_core.sources.reading import parse, read, said, split


def test_anthropic_transcripts_are_their_shared_turns_and_two_last_ones():
    (eggs, greeting), rejects = split(read("hh.jsonl"))
    assert eggs.prompt == said("UAU", "How do I boil an egg?", "In hot water.", "For how long?")
    assert eggs.chosen == "Seven minutes:\n\n- start the clock\n- wait"
    assert (eggs.rejected, eggs.layout, eggs.group) == ("I don't know.", "Anthropic HH", eggs.conversation_id)
    # verbatim: what follows a text stays, and nothing after the speaker is an empty response
    assert (greeting.prompt, greeting.chosen, greeting.rejected) == (said("U", "Hi"), "Hello! ", "")
    assert {row: (reject.fault, reject.reason) for row, reject in rejects.items()} == {
        3: (Fault.NOT_ONE_RESPONSE, "`chosen` ends with a turn of Human, not with a response"),
        4: (Fault.NOT_ONE_RESPONSE, "the transcripts of 4 and 4 turns part at turn 2, before the last turn of both"),
        5: (Fault.NOT_ALTERNATING, "turns 1 and 2 are both of role 'user'"),
    }


ONE = "\n\nHuman: Hi\n\nAssistant: Hello!"


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault", "message"),
    [
        (ONE, "Human: Hi\n\nAssistant: Go.", Fault.UNKNOWN_LAYOUT, "`rejected` is no transcript that opens with"),
        (ONE, 5, Fault.UNKNOWN_LAYOUT, "`rejected` is no transcript"),
        (ONE, "\n\nHuman:\n\nAssistant: Go.", Fault.EMPTY, "turn 1 of `rejected` is empty"),
        (ONE, "\n\nHuman: Hi", Fault.NOT_ONE_RESPONSE, "`rejected` ends with a turn of Human"),
        (ONE, ONE + "\n\nHuman: a\n\nAssistant: b", Fault.NOT_ONE_RESPONSE, "2 and 4 turns part at turn 2"),
        (ONE, "\n\nHuman: Ho\n\nAssistant: Hello!", Fault.NOT_ONE_RESPONSE, "part at turn 1"),
        (ONE + "\n\nHuman: a\n\nAssistant: b" * 2, ONE, Fault.MANY_TURNS, "`chosen` holds 6 turns, above max_turns=4"),
        (ONE, ONE, Fault.EQUAL_RESPONSES, "the same response"),
        ("\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: Hi\n\nAssistant: ", Fault.EMPTY, "are both empty"),
    ],
)
def test_what_is_no_pair_of_transcripts_is_refused(chosen, rejected, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse({"chosen": chosen, "rejected": rejected}, layout="hh", max_turns=4, identical_pairs="reject")
    assert caught.value.fault is fault


def test_a_prompt_beside_them_or_another_opening_makes_them_ordinary_responses():
    assert parse({"prompt": "p", "chosen": ONE, "rejected": "no"}).layout == "preference, standard explicit"
    assert parse({"chosen": "Say it: yes", "rejected": "Say it: no"}).layout == "preference, standard implicit"
