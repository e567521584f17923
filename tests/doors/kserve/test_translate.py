"""V2's JSON and bytes become tensors and tensors become JSON and bytes; what cannot be is told with the value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_strategies import named_arrays, same
from tidemill.core.errors import CallerError
from tidemill.core.request import Predict
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Signature, TensorSpec
from tidemill.doors.kserve import translate

NUMBERS = [name for name in DTYPES if name != "BYTES"]


def signature_of(tensors: dict[str, Array]) -> Signature:
    specs = tuple(TensorSpec(name, DATATYPES[array.dtype], array.shape) for name, array in tensors.items())
    return Signature(specs, specs)


def asked_again(answered: bytes, json_length: int) -> tuple[bytes, int]:
    """The outputs of an answer as the inputs of a request."""
    head = answered if json_length < 0 else answered[:json_length]
    told = json.loads(head)
    asked = json.dumps({"id": told.get("id", ""), "inputs": told["outputs"]}).encode()
    return asked + (b"" if json_length < 0 else answered[json_length:]), (-1 if json_length < 0 else len(asked))


@given(named_arrays(), st.text("xyz", max_size=3))
def test_bytes_round_trip_bit_for_bit(tensors: dict[str, Array], request_id: str) -> None:
    question = translate.Question(Predict({}), request_id, None, None)
    read = translate.question(signature_of(tensors), *asked_again(*translate.answer("m", 3, question, tensors)))
    assert read.id == request_id
    assert list(read.work.inputs) == list(tensors)
    assert all(same(read.work.inputs[name], array) for name, array in tensors.items())


@given(named_arrays(NUMBERS))
def test_numbers_round_trip_through_json_by_value(tensors: dict[str, Array]) -> None:
    question = translate.Question(Predict({}), "", None, ())
    body, length = translate.answer("m", 3, question, tensors)
    assert length == -1
    with np.errstate(invalid="ignore"):  # a NaN may be one that signals
        read = translate.question(signature_of(tensors), *asked_again(body, length)).work.inputs
    for name, array in tensors.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        wide = np.float64 if array.dtype.kind in "fV" else array.dtype
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(read[name].astype(wide), array.astype(wide))


@given(named_arrays(), st.data())
def test_json_and_bytes_may_be_mixed_in_any_way(tensors: dict[str, Array], data: st.DataObject) -> None:
    told_in_text = {name for name, array in tensors.items() if array.dtype.kind in "biu"}
    binary = set(tensors) - data.draw(st.sets(st.sampled_from(sorted(told_in_text)))) if told_in_text else set(tensors)
    question = translate.Question(Predict({}), "", None, binary)
    read = translate.question(signature_of(tensors), *asked_again(*translate.answer("m", 3, question, tensors)))
    assert all(same(read.work.inputs[name], array) for name, array in tensors.items())


def one(datatype: str, shape: Any, data: Any = ..., size: Any = ..., **more: Any) -> dict[str, Any]:
    made = {"name": "x", "datatype": datatype, "shape": shape, **more}
    if data is not ...:
        made["data"] = data
    if size is not ...:
        made["parameters"] = {"binary_data_size": size}
    return made


@pytest.mark.parametrize(
    ("asked", "tail", "code", "words"),
    [
        ([one("FP32", [2], size=7)], bytes(7), "input.shape", "7 bytes"),
        ([one("FP32", [2], size=8)], bytes(7), "request.malformed", "7 bytes left"),
        ([one("FP32", [2], size=8)], bytes(9), "request.malformed", "its inputs claim 8"),
        ([one("FP32", [2], size=-1)], b"", "request.malformed", "-1"),
        ([one("FP32", [2], [1, 2], size=8)], b"", "request.malformed", "0 bytes left"),
        ([one("FP32", [2])], b"", "request.malformed", "neither"),
        ([one("FP32", [2**31, 2**31, 2**31], size=0)], b"", "input.shape", "0 bytes"),
        ([one("FP32", [2**31 + 1, 0], size=0)], b"", "input.shape", "2147483649"),
        ([one("FP32", [2**40] * 64, [])], b"", "input.shape", "sizes from 0 to"),
        ([one("FP32", [1] * 65, [1])], b"", "input.shape", "65 dimensions"),
        ([one("FP32", [2, 2], [[1, 2], [3]])], b"", "input.shape", "ragged"),
        ([one("FP32", [3], [[1], [2, 3]])], b"", "input.shape", "ragged"),
        ([one("BYTES", [3], [["a"], ["b", "c"]])], b"", "input.shape", "ragged"),
        ([one("BYTES", [1], [5])], b"", "input.datatype", "int"),
        ([one("BYTES", [2], size=5)], b"\1\0\0\0a", "input.shape", "too few for 2 strings"),
        ([one("BOOL", [2], size=2)], b"\0\2", "input.value", "neither 0 nor 1"),
        ([one("INT64", [1], [2**63])], b"", "input.value", str(2**63)),
        ([one("UINT64", [1], [2**64])], b"", "input.value", "UINT64"),
        ([one("UINT64", [1], [-1])], b"", "input.value", "-1"),
        ([one("INT8", [1], [128])], b"", "input.value", "128"),
        ([one("INT64", [1], [1.5])], b"", "input.datatype", "numbers"),
        ([one("FP16", [1], [65520])], b"", "input.value", "65520"),
        ([one("FP32", [1], [1e39])], b"", "input.value", "1e+39"),
        ([one("BF16", [1], [1e39])], b"", "input.value", "1e+39"),
        ([one("FP32", [1], [True])], b"", "input.datatype", "booleans"),
        ([one("FP32", [1], ["1"])], b"", "input.datatype", "strings"),
        ([one("FP32", [1], [1]), one("FP32", [1], [1])], b"", "request.malformed", "given twice"),
        ([one("FP32", [1], [1]), one("FP32", [1], [1], name="z")], b"", "input.unknown", "'z'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_is_told_with_the_value(
    asked: list[dict[str, Any]], tail: bytes, code: str, words: str
) -> None:
    datatype = str(asked[0]["datatype"])
    signature = Signature((TensorSpec("x", datatype, None),), (TensorSpec("y", datatype, None),))
    head = json.dumps({"inputs": asked}).encode()
    with pytest.raises(CallerError) as caught:
        translate.question(signature, head + tail, len(head) if tail or "parameters" in asked[0] else -1)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_whole_numbers_beyond_a_doubles_are_read_as_they_are(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    data = [2**53 + 1, int(limits.max), int(limits.min)]
    signature = Signature((TensorSpec("x", datatype, (3,)),), ())
    read = translate.question(signature, json.dumps({"inputs": [one(datatype, [3], data)]}).encode(), -1)
    assert read.work.inputs["x"].tolist() == data


@pytest.mark.parametrize("length", [-1, 0, 5, 10**6])
def test_a_header_that_lies_about_the_json_is_told(length: int) -> None:
    signature = Signature((TensorSpec("x", "FP32", (1,)),), ())
    body = json.dumps({"inputs": [one("FP32", [1], size=4)]}).encode() + bytes(4)
    with pytest.raises(CallerError) as caught:
        translate.question(signature, body, length)
    assert caught.value.code == "request.malformed"
