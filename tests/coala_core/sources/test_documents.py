import io
import json

import pytest

from coala_core.sources import Fault, Row
from coala_core.sources.documents import document_rows


def read(content):
    return list(document_rows(io.BytesIO(content), "rows.json"))


def test_a_single_object_is_one_row():
    row = {"messages": [{"role": "user", "content": "hi"}], "notes": []}
    assert read(json.dumps(row, indent=1).encode()) == [Row(1, row, "rows.json")]


def test_the_single_list_of_an_object_without_fields_of_a_layout_holds_the_rows():
    assert read(b'{"version": 2, "rows": [{"id": 1}]}') == [Row(1, {"id": 1}, "rows.json")]
    both = {"one": [{"id": 1}], "two": [{"id": 2}]}
    assert read(json.dumps(both).encode()) == [Row(1, both, "rows.json")]


def test_bad_bytes_in_a_list_cost_only_their_item():
    good, bad, last = read(b'[{"id": 1}, {"id": "\xff\xfe"}, {"id": 3}]')
    assert (good, last) == (Row(1, {"id": 1}, "rows.json"), Row(3, {"id": 3}, "rows.json"))
    assert (bad.source, bad.row, bad.fault, bad.excerpt) == ("rows.json", 2, Fault.NOT_UTF8, '{"id": "??"}')


def test_a_deep_or_shapeless_item_costs_only_itself():
    deep = "[" * 200 + "]" * 200
    good, nest, number = read(f'[{{"id": 12345678901234567890123}}, {{"nest": {deep}}}, 7]'.encode())
    assert good == Row(1, {"id": 12345678901234567890123}, "rows.json")
    assert (nest.row, nest.fault) == (2, Fault.NOT_JSON)
    assert (number.row, number.fault, number.reason) == (3, Fault.NOT_OBJECT, "the row is a int, not an object")


def test_a_long_number_across_two_blocks_is_exact():
    filler = "x" * (2**20 - 10)  # the number begins just before the end of the first block that is searched
    (row,) = read(f'{{"t": "{filler}", "n": 12345678901234567890123}}'.encode())
    assert row.content["n"] == 12345678901234567890123


@pytest.mark.parametrize("depth", [2000, 100_000])
def test_a_list_nested_too_deep_is_one_sentence(depth):
    with pytest.raises(ValueError, match="needs a complete JSON list, got lists and objects nested too deep; write"):
        read(b"[" * depth + b"]" * depth)
