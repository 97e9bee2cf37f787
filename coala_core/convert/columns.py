"""Rows of any shape as columns that give them back exactly: Parquet with types, CSV as text.

A column holds one type and cannot tell null from absent. What a column cannot hold exactly goes, as JSON, into the
text column `PACKED`: a null, a number among texts, a list of unequal things. Where it can be shown, its text stands in
the column too. `unpack` puts the exact values back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

PACKED = "coala_fields"
"""Column of a JSON object with the fields of a row that its columns cannot hold exactly."""

MOST_COLUMNS = 1000
"""Columns of a file; further fields are packed."""

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

Row = Mapping[str, object]


@dataclass
class Columns:
    """The columns of a file, learnt from all its rows before the first is written.

    Parameters
    ----------
    kind : {"parquet", "csv"}
        In CSV every column is text, and lists and mappings are packed.
    fixed : mapping of str to pyarrow.DataType
        Types of the columns that belong to the layout; they hold the layout's part of a richer value.
    """

    kind: Literal["parquet", "csv"]
    fixed: Mapping[str, pa.DataType]
    packed: set[str] = field(default_factory=set)
    """Fields that are packed in at least one row."""
    _types: dict[str, pa.DataType | None] = field(default_factory=dict)

    def learn(self, row: Row) -> None:
        """Take a row into account."""
        for name, value in row.items():
            if name not in self.fixed:
                self._learn_field(name, value)
            elif not self._fits(name, value):
                self.packed.add(name)

    def _learn_field(self, name: str, value: object) -> None:
        """Widen the type of a field's column to hold a value, if a type does."""
        known = self._types.get(name, pa.null())
        if name not in self._types and (len(self._types) >= MOST_COLUMNS or not _can_name(name)):
            known = None
        shown = _shown_type(value) if self.kind == "csv" else type_of(value)
        merged = merge_types(known, shown)
        if merged is None or value is None or (self.kind == "csv" and (value == "" or not isinstance(value, str))):
            self.packed.add(name)
        if merged is None and known is not None and _is_scalar(known) and isinstance(value, str | int | float):
            merged = pa.string()
        if known is not None and value is not None:
            self._types[name] = merged

    @property
    def schema(self) -> pa.Schema:
        """Columns in the order in which they were met, the layout's before the others, `PACKED` last."""
        types = {name: _without_null(kind) for name, kind in self._types.items() if kind is not None}
        last = {PACKED: pa.string()} if self.packed else {}
        return pa.schema([*(dict(self.fixed) | types | last).items()])

    def pack(self, row: Row) -> dict[str, object]:
        """Return the cells of a row that was learnt, those without a value left out."""
        cells: dict[str, object] = {}
        packed: dict[str, object] = {}
        for name, value in row.items():
            cell, exact = self._cell(name, value)
            if not exact:
                packed[name] = value
            if cell is not None:
                cells[name] = cell
        return cells | {PACKED: json.dumps(packed, ensure_ascii=False)} if packed else cells

    def _cell(self, name: str, value: object) -> tuple[object, bool]:
        """Return what stands in the column of a field, and whether it is the value itself."""
        if name in self.fixed:
            return _cut(value, self.fixed[name]), self._fits(name, value)
        column = self._types.get(name)
        if column is None or value is None:
            return None, False
        if pa.types.is_string(column) and not isinstance(value, str):
            return str(value), False
        return value, self.kind == "parquet" or value != ""

    def _fits(self, name: str, value: object) -> bool:
        """Tell whether the layout's own column holds a value exactly."""
        return _cut(value, self.fixed[name]) == value


def unpack(row: Row) -> Row:
    """Give a row of a Parquet or CSV file its packed fields back, and drop cells without a value.

    A row whose `PACKED` column is anything but a JSON object, hence not of this module, only loses empty cells.

    Parameters
    ----------
    row : mapping
        As read from the file.
    """
    present = {name: value for name, value in row.items() if value is not None}
    text = present.get(PACKED)
    try:
        packed = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        packed = None
    if not isinstance(packed, dict):
        return present
    return {name: value for name, value in present.items() if name != PACKED} | packed


def type_of(value: object) -> pa.DataType | None:
    """Return the Arrow type that holds a JSON value exactly, or None where none does."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if _SMALLEST <= value <= _LARGEST else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list):
        return _list_type(value)
    return _struct_type(value) if isinstance(value, dict) and value else None


def merge_types(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    """Return the type that holds the values of both exactly, or None where none does."""
    if one is None or other is None:
        return None
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_list(one) and pa.types.is_list(other):
        item = merge_types(one.value_type, other.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merge_structs(one, other)
    return None


def _merge_structs(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    """Merge structs of equal names."""
    mine, theirs = ({member.name: member.type for member in struct} for struct in (one, other))
    if mine.keys() != theirs.keys():
        return None
    merged = {name: merge_types(kind, theirs[name]) for name, kind in mine.items()}
    return None if None in merged.values() else pa.struct([*merged.items()])


def _list_type(values: list[object]) -> pa.DataType | None:
    """Type of a list, whose items must agree."""
    item: pa.DataType | None = pa.null()
    for value in values:
        item = merge_types(item, type_of(value))
    return None if item is None else pa.list_(item)


def _struct_type(value: Mapping[str, object]) -> pa.DataType | None:
    """Type of a mapping with at least one key."""
    kinds = {name: type_of(member) for name, member in value.items()}
    return None if None in kinds.values() or not all(map(_can_name, kinds)) else pa.struct([*kinds.items()])


def _without_null(kind: pa.DataType) -> pa.DataType:
    """Give what is always null a type that every reader knows."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(member.name, _without_null(member.type)) for member in kind])
    return kind


def _cut(value: object, kind: pa.DataType) -> object:
    """Cut messages with further keys down to the keys of the layout."""
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and isinstance(value, list)):
        return value
    names = [member.name for member in kind.value_type]
    return [{name: item[name] for name in names} for item in value]


def _shown_type(value: object) -> pa.DataType | None:
    """Type of a column of CSV, which is text or nothing."""
    return pa.null() if value is None else pa.string() if isinstance(value, str | int | float) else None


def _is_scalar(kind: pa.DataType) -> bool:
    """Tell whether a column holds no lists and no mappings."""
    return not pa.types.is_nested(kind)


def _can_name(name: str) -> bool:
    """Tell whether every reader keeps a name as it is."""
    return bool(name) and name.isprintable() and name == name.strip() and name != PACKED
