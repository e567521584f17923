"""A large request of floats is read in one pass: whatever it holds, it is read as a small one with the same content."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import TidemillError
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.doors import quick_json
from tidemill.doors.kserve import translate

ROOM = b" " * translate._ONE_PASS_BYTES
MORE_ROOM = b" " * translate._QUICK_BYTES
FLOATS = Signature((TensorSpec("x", "FP32", None), TensorSpec("z", "FP64", None)), ())
MIXED = Signature((TensorSpec("x", "FP32", None), TensorSpec("z", "INT64", None)), ())
numbers = st.floats(width=32) | st.integers(-(2**70), 2**70) | st.sampled_from([1e39, -0.0, 5e-324])
odd = st.none() | st.booleans() | st.text(max_size=3)
lists = (
    st.lists(numbers, max_size=6)
    | st.lists(numbers | odd, max_size=4)
    | st.lists(st.lists(numbers, max_size=3), max_size=3)
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    inputs = []
    for name in draw(st.sampled_from([["x", "z"], ["z", "x"], ["x"], ["x", "z", "y"], ["x", "x"]])):
        data = draw(lists)
        given = {"name": name, "datatype": draw(st.sampled_from(["FP32", "FP64", "INT64"])), "shape": [len(data)]}
        if draw(st.integers(0, 9)):
            given["data"] = data
        if not draw(st.integers(0, 3)):
            given["shape"] = draw(st.lists(st.integers(-1, 4), max_size=2))
        inputs.append(given)
    asked: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        asked["parameters"] = draw(st.sampled_from([{}, {"a": [1, [2]]}, {"b": "["}, {"binary_data_output": True}]))
    if draw(st.booleans()):
        asked["id"] = draw(st.text(max_size=2) | st.integers())
    return asked


def told(signature: Signature, body: bytes) -> Any:
    try:
        asked = translate.question(signature, body, -1)
    except TidemillError as error:
        return error.code
    return asked.id, {name: (array.dtype, array.shape, array.tobytes()) for name, array in asked.work.inputs.items()}


@given(st.sampled_from([FLOATS, MIXED]), requests())
def test_size_makes_no_difference(signature: Signature, asked: dict[str, Any]) -> None:
    body = json.dumps(asked).encode()
    small = told(signature, body)
    assert told(signature, body + ROOM) == small
    assert told(signature, body + MORE_ROOM) == small


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"inputs": [' + b"[" * 9000, b'{"inputs": 1}'])
def test_what_is_no_request_is_refused_alike(body: bytes) -> None:
    assert told(FLOATS, body + MORE_ROOM) == told(FLOATS, body + ROOM) == told(FLOATS, body) == "request.malformed"


def test_a_picture_is_read_exactly() -> None:
    picture = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    only = Signature((TensorSpec("x", "FP32", (-1, 3, 64, 64)),), ())
    given = {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": picture.ravel().tolist()}
    asked = translate.question(only, json.dumps({"inputs": [given]}).encode(), -1)
    assert np.array_equal(asked.work.inputs["x"], picture)


@pytest.mark.parametrize(
    "data", ["[[1], [2]]", "[[1, 2]]", "[1, [2]]", '["1"]', "[true]", "[null]", "1", "[1e400]", "[NaN]", "{}"]
)
def test_what_is_no_flat_list_of_numbers_is_left_to_the_other_reader(data: str) -> None:
    given = f'{{"name": "x", "datatype": "FP32", "shape": [2], "data": {data}}}'
    assert quick_json.with_arrays(f'{{"inputs": [{given}]}}'.encode()) is None


@pytest.mark.parametrize(
    "body", ['{"id": "a", "id": "b", "inputs": []}', '{"inputs": [{"data": [1], "data": [2]}]}', "[]"]
)
def test_a_key_that_is_there_twice_is_left_to_the_other_reader(body: str) -> None:
    assert quick_json.with_arrays(body.encode()) is None


def test_the_quick_reader_reads_numbers_exactly() -> None:
    pytest.importorskip("simdjson")
    body = b'{"inputs": [{"name": "x", "data": [1, -2.5, 0.1, 18446744073709551615, -0.0, 5e-324]}], "id": "7"}'
    told = quick_json.with_arrays(body)
    assert told is not None
    assert (told["id"], told["inputs"][0]["name"]) == ("7", "x")
    assert told["inputs"][0]["data"].tolist() == [1.0, -2.5, 0.1, 2.0**64, -0.0, 5e-324]
