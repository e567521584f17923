"""Large bodies are read by a quicker reader, which reads nothing otherwise than the reader of small ones."""

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
from tidemill.doors.tfserving import translate

ROOM = b" " * translate.QUICK_BYTES
NUMBERS = st.floats(-1e6, 1e6) | st.integers(-(2**30), 2**30)
LEAVES = NUMBERS | st.just(2**24 + 1) | st.booleans() | st.none() | st.just("1") | st.just({"b64": "AQ=="})
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=12)
EVEN = st.integers(0, 3).flatmap(
    lambda rows: st.integers(0, 3).flatmap(
        lambda columns: st.lists(st.lists(NUMBERS, min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
)


def told(datatype: str, body: bytes) -> Any:
    """What is asked, or the code of the refusal and its words."""
    signature = Signature((TensorSpec("x", datatype, None),), ())
    try:
        asked = translate.question(signature, body)
    except TidemillError as error:
        return error.code, error.message
    (array,) = asked.work.inputs.values()
    return asked.rows, array.dtype, array.shape, array.tolist()


@given(VALUES | EVEN, st.sampled_from(["instances", "inputs"]), st.sampled_from(["FP32", "FP64", "INT32", "FP16"]))
def test_a_large_body_is_read_as_a_small_one(values: Any, form: str, datatype: str) -> None:
    body = json.dumps({form: values}).encode()
    assert told(datatype, body + ROOM) == told(datatype, body)


@pytest.mark.parametrize(
    "body",
    [
        '{"instances": [[1, 2, 3], [4]]}',
        '{"instances": [[1, [2]], [3, 4]]}',
        '{"instances": [1], "inputs": [1]}',
        '{"instances": [1], "instances": [2]}',
        '{"instances": []}',
        '{"instances": [[], []]}',
        '{"instances": {"x": [1]}}',
        '{"instances": [true]}',
        '{"instances": [NaN]}',
        '{"instances": [1e400]}',
        '{"other": [1]}',
        "[1]",
        "{",
    ],
)
def test_what_is_no_even_list_of_numbers_is_left_to_the_other_reader(body: str) -> None:
    assert quick_json.with_nested(body.encode(), translate.FORMS) is None


def test_a_signature_is_looked_at_in_a_large_body_too() -> None:
    body = json.dumps({"instances": [1.0], "signature_name": "other"}).encode()
    assert told("FP32", body + ROOM) == told("FP32", body)
    assert told("FP32", body)[0] == "model.signature_unknown"


def test_a_picture_is_read_exactly_by_the_quick_reader() -> None:
    pytest.importorskip("simdjson")
    picture = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    read = quick_json.with_nested(json.dumps({"instances": picture.tolist()}).encode(), translate.FORMS)
    assert read is not None
    assert np.array_equal(read["instances"].astype(np.float32), picture)
