import io
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audio import json_columns
from services.audio.json_columns import (
    NotColumnsError,
    numbers,
    read_columns,
    strings,
    write_columns,
)

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ['"', "\\", "a,b", "]", '\\",[', "}", "ä", "\n"]
)
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(width=32) | texts
columns = st.dictionaries(texts, st.lists(values, max_size=8) | values, max_size=5)


def read(content: bytes, piece_bytes: int = 1 << 18) -> dict[str, Any]:
    with patch.object(json_columns, "PIECE_BYTES", piece_bytes):
        return {
            name: [value for piece in column for value in piece]
            if isinstance(column, Iterator)
            else column
            for name, column in read_columns(io.BytesIO(content))
        }


def is_flat(parsed: Any) -> bool:
    if not isinstance(parsed, dict):
        return False
    values = [
        value
        for column in parsed.values()
        for value in (column if isinstance(column, list) else [column])
    ]
    return not any(isinstance(value, dict | list) for value in values)


@settings(max_examples=300)
@given(written=columns, piece_bytes=st.integers(1, 40), indented=st.booleans())
def test_columns_are_read_as_by_orjson_however_they_are_cut(
    written: dict[str, Any], piece_bytes: int, indented: bool
) -> None:
    content = orjson.dumps(written, option=orjson.OPT_INDENT_2 if indented else 0)

    assert read(content, piece_bytes) == orjson.loads(content)


@settings(max_examples=500)
@given(
    written=columns,
    damage=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from(b'{}[],:"\\ 01-.eEntuf\x00\xff')),
        min_size=1,
        max_size=3,
    ),
    piece_bytes=st.integers(1, 40),
)
def test_what_orjson_refuses_is_refused_and_the_rest_is_read_alike(
    written: dict[str, Any], damage: list[tuple[int, int]], piece_bytes: int
) -> None:
    content = bytearray(orjson.dumps(written))
    for position, octet in damage:
        content[position % len(content)] = octet
    try:
        expected = orjson.loads(content)
    except orjson.JSONDecodeError:
        expected = None

    try:
        found = read(bytes(content), piece_bytes)
    except NotColumnsError:
        found = None

    assert found == (expected if is_flat(expected) else None)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}'),
        *(b'{"a":1}}', b'{"a":1 "b":2}', b"{1:2}", b'{"a":[1', b'{"a":[1,]}', b'{"a":[,1]}'),
        *(b'{"a":[1,,2]}', b'{"a":[1 2]}', b'{"a":["x}', b'{"a":[[1]]}', b'{"a":{}}'),
        *(b'{"a":[{}]}', b'{"a":"x}', b'{"a":NaN}', b'{"a":[,]}', b'{"a":}', b'{"a":]}'),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 2, 1 << 18])
def test_what_is_no_object_of_columns_is_refused(content: bytes, piece_bytes: int) -> None:
    with pytest.raises(NotColumnsError):
        read(content, piece_bytes)


def test_a_value_without_an_end_is_refused_before_it_is_all_in_memory() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b'{"a":["' if self.taken == size else b"x" * size

    file = Endless()
    with pytest.raises(NotColumnsError, match="holds a value of more than"):
        list(read_columns(file))  # type: ignore[arg-type]  # the reader only reads

    assert file.taken < 2 * json_columns.MAX_VALUE_BYTES


@given(written=st.dictionaries(texts, st.lists(st.floats(width=32, allow_nan=False)), max_size=4))
def test_columns_in_pieces_are_written_as_orjson_writes_them_whole(
    written: dict[str, list[float]],
) -> None:
    file = io.BytesIO()
    arrays = {name: np.asarray(column, np.float32) for name, column in written.items()}

    write_columns(
        file,
        [
            *((name, iter(np.split(array, [2])[: len(array)])) for name, array in arrays.items()),
            ("_single", 3),
        ],
    )

    expected = {**arrays, "_single": 3}
    assert file.getvalue() == orjson.dumps(expected, option=orjson.OPT_SERIALIZE_NUMPY)


def test_columns_passed_over_do_not_hide_the_next() -> None:
    file = io.BytesIO(orjson.dumps({"a": list(range(100_000)), "b": ["x"], "c": 1}))

    assert [name for name, _ in read_columns(file)] == ["a", "b", "c"]


@pytest.mark.parametrize("column", [3, None, iter([[True]]), iter([["1"]]), iter([[1], [1e300]])])
def test_what_are_no_numbers_is_refused_by_name(column: Any) -> None:
    with pytest.raises(NotColumnsError, match="mfcc0 "):
        list(numbers("mfcc0", column, np.float32))


@pytest.mark.parametrize("column", ["abc", iter([["a", 1]]), iter([[None]])])
def test_what_are_no_strings_is_refused_by_name(column: Any) -> None:
    with pytest.raises(NotColumnsError, match="_id "):
        list(strings("_id", column))
