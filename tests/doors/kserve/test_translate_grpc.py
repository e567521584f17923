"""KServe's gRPC messages become tensors and tensors become messages; what cannot be is told with the value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_strategies import arrays, named_arrays, same
from tidemill.core import schemas
from tidemill.core.errors import (
    CallerError,
    MalformedRequest,
    NotOffered,
    UnknownVersion,
    WrongDatatype,
    WrongShape,
    WrongValue,
)
from tidemill.core.tensor import DATATYPES, DTYPES, Array
from tidemill.doors.kserve import translate_grpc as translate
from tidemill.doors.way import version_of

ModelInferRequest = schemas.message("inference.ModelInferRequest")
ModelInferResponse = schemas.message("inference.ModelInferResponse")
ModelStreamInferResponse = schemas.message("inference.ModelStreamInferResponse")
GROUP = b"\xa3\x06\xa4\x06"  # an unknown field in the old form, which protobuf keeps


def request(**fields: object) -> object:
    return ModelInferRequest(model_name="m", **fields)


def one_input(datatype: str, shape: list[int], *, raw: bytes | None = None, **contents: object) -> object:
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    if contents:
        tensor["contents"] = contents
    return request(inputs=[tensor], raw_input_contents=[] if raw is None else [raw])


def typed(array: Array) -> object:
    datatype = DATATYPES[array.dtype]
    field, _ = translate.CONTENTS[datatype]
    return one_input(datatype, list(array.shape), **{field: array.ravel().tolist()})


@given(named_arrays(), st.text("xyz", max_size=3))
def test_raw_tensors_round_trip(tensors: dict[str, Array], request_id: str) -> None:
    answer = ModelInferResponse.FromString(translate.response("m", 3, request_id, tensors))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", request_id)
    inputs = [{"name": o.name, "datatype": o.datatype, "shape": o.shape} for o in answer.outputs]
    read = translate.predict(request(inputs=inputs, raw_input_contents=answer.raw_output_contents)).inputs
    assert list(read) == list(tensors)
    assert all(same(read[name], array) for name, array in tensors.items())


@given(st.sampled_from(list(translate.CONTENTS)).flatmap(arrays))
def test_typed_contents_are_read(array: Array) -> None:
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)  # a NaN's bits do not survive Python floats
    read = translate.predict(typed(array)).inputs["x"]
    assert same(read, array)
    assert read.flags.c_contiguous


def test_typed_contents_beside_an_unknown_group_are_read() -> None:
    contents = typed(np.array([1.5, 2.5], np.float32)).inputs[0].contents.SerializeToString() + GROUP
    message = one_input("FP32", [2])
    message.inputs[0].contents.ParseFromString(contents)
    assert translate.predict(message).inputs["x"].tolist() == [1.5, 2.5]


def test_raw_values_are_not_copied() -> None:
    read = translate.predict(one_input("FP32", [2], raw=b"\0" * 8)).inputs["x"]
    assert not read.flags.owndata


def test_wanted_outputs_are_named() -> None:
    assert translate.predict(request(outputs=[{"name": "b"}, {"name": "a"}])).outputs == ("b", "a")


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (one_input("FP32", [2], raw=b"\0" * 7), WrongShape, "7 bytes in raw_input_contents, expected 8 for FP32 [2]"),
        (one_input("FP32", [2**40, 2**40], raw=b"\0" * 4), WrongShape, "has 4 bytes"),
        (one_input("FP32", [-1, 2], raw=b"\0" * 8), WrongShape, "[-1, 2]"),
        (one_input("FP32", [1] * 70, raw=b"\0" * 4), WrongShape, "64"),
        (one_input("FP32", [0, 2**62], raw=b""), WrongShape, "4611686018427387904"),
        (one_input("FLOAT", [1], raw=b"\0" * 4), WrongDatatype, "'FLOAT', expected one of BOOL"),
        (one_input("", [1], fp32_contents=[1]), WrongDatatype, "''"),
        (one_input("BOOL", [2], raw=b"\0\2"), WrongValue, "other than 0 and 1"),
        (one_input("FP32", [1], raw=b"\0" * 4, fp32_contents=[1]), MalformedRequest, "send one of them"),
        (one_input("FP32", [2], fp32_contents=[1, 2, 3]), WrongShape, "3 values in fp32_contents, expected 2"),
        (one_input("FP32", [2], int_contents=[1, 2]), WrongShape, "0 values in fp32_contents, expected 2"),
        (one_input("FP16", [1], fp32_contents=[1]), MalformedRequest, "raw_input_contents only"),
        (one_input("BF16", [1]), MalformedRequest, "raw_input_contents only"),
        (one_input("UINT8", [2], uint_contents=[3, 300]), WrongValue, "from 3 to 300, which do not fit UINT8"),
        (one_input("INT16", [1], int_contents=[-40000]), WrongValue, "-40000"),
        (one_input("BYTES", [2], raw=b"\1\0\0\0a"), WrongShape, "too few for 2 strings"),
        (one_input("BYTES", [2], raw=b"\5\0\0\0a\0\0\0"), WrongShape, "string 0 of 2 reaches beyond"),
        (one_input("BYTES", [1], raw=b"\xff\xff\xff\xff"), WrongShape, "string 0 of 1 reaches beyond"),
        (one_input("BYTES", [2], raw=b"\4\0\0\0abcd"), WrongShape, "string 1 of 2 reaches beyond"),
        (one_input("BYTES", [1], raw=b"\1\0\0\0ab"), WrongShape, "1 bytes after its 1 strings"),
        (one_input("BYTES", [2**50], raw=b"\0" * 8), WrongShape, "too few"),
        (request(inputs=[{"name": "x"}], raw_input_contents=[b"", b""]), MalformedRequest, "2 entries"),
        (request(inputs=[{"name": "x", "datatype": "FP32", "shape": [0]}] * 2), MalformedRequest, "'x' is there twice"),
    ],
)
def test_what_does_not_fit_is_told_with_the_value(message: object, error: type[CallerError], words: str) -> None:
    with pytest.raises(error) as caught:
        translate.predict(message)
    assert words in caught.value.message
    assert "'x'" in caught.value.message or "entries" in caught.value.message


def test_parameters_that_would_change_the_answer_are_refused() -> None:
    message = one_input("FP32", [0])
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(NotOffered, match="shared_memory_region"):
        translate.predict(message)


def test_classes_are_wanted_of_the_outputs_that_say_so() -> None:
    message = request(outputs=[{"name": "y"}, {"name": "z"}, {"name": "none"}])
    message.outputs[1].parameters["classification"].int64_param = 3
    message.outputs[2].parameters["classification"].int64_param = 0
    assert translate.wanted_classes(message) == {"z": 3}
    assert translate.predict(message).outputs == ("y", "z", "none")
    message.outputs[0].parameters["classification"].string_param = "3"
    with pytest.raises(MalformedRequest, match="output 'y': classification is '3'"):
        translate.wanted_classes(message)


@given(named_arrays(), st.text("xyz", max_size=3))
def test_a_streamed_answer_is_the_plain_one_marked_as_the_last(tensors: dict[str, Array], request_id: str) -> None:
    told = ModelStreamInferResponse.FromString(translate.streamed("m", 3, request_id, tensors))
    assert not told.error_message
    assert told.infer_response.parameters.pop("triton_final_response").bool_param
    assert told.infer_response == ModelInferResponse.FromString(translate.response("m", 3, request_id, tensors))


@given(st.binary(max_size=20))
def test_a_refusal_in_a_stream_tells_of_any_bytes(body: bytes) -> None:
    told = ModelStreamInferResponse.FromString(translate.stream_refusal(body, "no"))
    assert told.error_message == "no"
    assert told.infer_response.parameters["triton_final_response"].bool_param


def test_a_refusal_in_a_stream_names_the_request() -> None:
    asked = ModelInferRequest(model_name="m", model_version="3", id="q").SerializeToString()
    told = ModelStreamInferResponse.FromString(translate.stream_refusal(asked, "no")).infer_response
    assert (told.model_name, told.model_version, told.id) == ("m", "3", "q")


def test_the_timeout_parameter_is_in_microseconds() -> None:
    message = request()
    assert translate.timeout_s(message) is None
    message.parameters["timeout"].int64_param = 1500
    assert translate.timeout_s(message) == 0.0015
    message.parameters["timeout"].string_param = "soon"
    with pytest.raises(MalformedRequest, match="'soon'"):
        translate.timeout_s(message)


def test_parameters_are_plain_values_and_an_empty_one_is_refused() -> None:
    message = request()
    message.parameters["a"].bool_param = False
    message.parameters["b"].double_param = 0.5
    message.parameters["c"].uint64_param = 2**64 - 1
    assert translate.parameters(message.parameters) == {"a": False, "b": 0.5, "c": 2**64 - 1}
    message.parameters["d"].SetInParent()
    with pytest.raises(MalformedRequest, match="'d' has no value"):
        translate.parameters(message.parameters)


def test_a_version_is_a_number_or_nothing() -> None:
    assert version_of("m", "") is None
    assert version_of("m", "12") == 12
    for bad in ("latest", "-1", "1.0", "٣", "9" * 5000):
        with pytest.raises(UnknownVersion):
            version_of("m", bad)


def test_every_datatype_but_the_half_ones_has_a_typed_field() -> None:
    assert DTYPES.keys() - translate.CONTENTS.keys() == {"FP16", "BF16"}
