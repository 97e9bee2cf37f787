import pytest

from coala_core.sources import Fault, RowError
from tests.coala_core.sources.reading import parse, read, said, split


def test_the_label_of_llmbar_is_the_number_of_the_chosen_output():
    (cat, dog, again, eel), rejects = split(read("llmbar.json"))
    assert (cat.prompt, cat.chosen, cat.rejected) == (said("U", "Spell cat."), "c, a, t", "A cat is a pet.")
    assert (dog.prompt, dog.chosen, dog.rejected) == (said("U", "Spell dog."), "d, o, g", "A dog barks.")
    # the pair judged a second time, outputs exchanged, is another pair on the same prompt
    assert (again.chosen, again.rejected, again.group) == (cat.chosen, cat.rejected, cat.group)
    assert again.key != cat.key
    assert (eel.chosen, eel.rejected) == ("e, e, l", "   \n ")
    assert {row: reject.fault for row, reject in rejects.items()} == {5: Fault.BAD_LABEL}


ROW = {"input": "p", "output_1": "a", "output_2": "b"}


@pytest.mark.parametrize("label", [1, "1", " 1 ", 1.0])
def test_labels_may_be_texts_or_floats(label):
    assert parse(ROW | {"label": label}).chosen == "a"


@pytest.mark.parametrize(("label", "found"), [(0, "0"), (True, "True"), ("one", "'one'"), ([1], "a list")])
def test_other_labels_are_refused(label, found):
    with pytest.raises(RowError, match=f"must be 1 or 2, the number of the better output, got {found}") as caught:
        parse(ROW | {"label": label})
    assert caught.value.fault is Fault.BAD_LABEL


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"input": " "}, Fault.EMPTY, "`input` is empty"),
        ({"output_2": 3}, Fault.NOT_TEXT, "`output_2` holds a int"),
        ({"output_1": "", "output_2": " "}, Fault.EMPTY, "are both empty"),
    ],
)
def test_unusable_texts_are_refused(change, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse(ROW | {"label": 1} | change)
    assert caught.value.fault is fault
