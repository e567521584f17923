"""TensorFlow Serving's messages become tensors and tensors become messages; what cannot be is told with the value."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import HALVE, FakeServed, halve
from message_strategies import arrays, named_arrays, same
from tidemill.core import schemas
from tidemill.core.errors import (
    CallerError,
    MalformedRequest,
    RequestTooLarge,
    UnknownSignature,
    WrongDatatype,
    WrongShape,
    WrongValue,
)
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Signature, TensorSpec
from tidemill.doors.tfserving import results, tensor_proto
from tidemill.doors.tfserving import translate_grpc as translate
from tidemill.doors.tfserving.spec import chosen, word_for

ModelSpec = schemas.message("tensorflow.serving.ModelSpec")
PredictRequest = schemas.message("tensorflow.serving.PredictRequest")
PredictResponse = schemas.message("tensorflow.serving.PredictResponse")
SignatureDefMap = schemas.message("tensorflow.serving.SignatureDefMap")
TensorProto = schemas.message("tensorflow.TensorProto")

FLOAT, INT32, UINT8, STRING, COMPLEX64, INT64, BOOL, HALF = 1, 3, 4, 7, 8, 9, 10, 19
BYTES_MAX = 1 << 20
GROUP = b"\xa3\x06\xa4\x06"  # an unknown field in the old form, which protobuf keeps


def proto(dtype: int, shape: list[int], **fields: object) -> object:
    return TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": size} for size in shape]}, **fields)


def read(message: object) -> Array:
    return tensor_proto.tensor("x", message, BYTES_MAX)


@given(named_arrays())
def test_tensors_round_trip_through_the_typed_fields(tensors: dict[str, Array]) -> None:
    answer = PredictResponse.FromString(translate.response("m", 3, "", tensors))
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 3, "serving_default")
    assert not any(output.tensor_content for output in answer.outputs.values())
    found = translate.predict(PredictRequest(inputs=answer.outputs), BYTES_MAX).inputs
    assert found.keys() == tensors.keys()
    assert all(same(found[name], array) for name, array in tensors.items())


@given(st.sampled_from([name for name in DTYPES if name != "BYTES"]).flatmap(arrays))
def test_tensor_content_is_read_without_a_copy(array: Array) -> None:
    code = {name: code for code, name in TF_DATATYPES.items()}[DATATYPES[array.dtype]]
    found = read(proto(code, list(array.shape), tensor_content=array.tobytes()))
    assert same(found, array)
    assert found.size == 0 or not found.flags.owndata


def test_one_value_fills_the_shape() -> None:
    assert read(proto(FLOAT, [2, 2], float_val=[7])).tolist() == [[7, 7], [7, 7]]
    assert read(proto(STRING, [2], string_val=[b"a"])).tolist() == [b"a", b"a"]
    assert read(proto(HALF, [2], half_val=[0x3C00])).tolist() == [1, 1]


def test_the_last_of_too_few_values_goes_on_to_the_end() -> None:
    assert read(proto(INT64, [4], int64_val=[1, 2])).tolist() == [1, 2, 2, 2]


def test_no_value_at_all_means_zeros() -> None:
    assert read(proto(INT32, [2])).tolist() == [0, 0]
    assert read(proto(STRING, [1])).tolist() == [b""]


def test_a_scalar_has_no_dimension() -> None:
    assert read(proto(BOOL, [], bool_val=[True])).shape == ()


def test_values_beside_an_unknown_group_are_read() -> None:
    assert read(TensorProto.FromString(GROUP + proto(FLOAT, [2], float_val=[1.5, 2]).SerializeToString())).tolist() == [
        1.5,
        2,
    ]


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (proto(COMPLEX64, [1]), WrongDatatype, "DT_COMPLEX64, expected one of DT_FLOAT"),
        (proto(0, [1], float_val=[1]), WrongDatatype, "DT_INVALID"),
        (proto(99, [1]), WrongDatatype, "99"),
        (proto(29, [1], int_val=[1]), WrongDatatype, "DT_INT4"),
        (proto(24, [1]), WrongDatatype, "DT_FLOAT8_E5M2"),
        (proto(FLOAT, [2], float_val=[1, 2, 3]), WrongShape, "3 values, expected 2"),
        (proto(FLOAT, [], float_val=[1, 2]), WrongShape, "2 values, expected 1 for shape []"),
        (proto(FLOAT, [2], tensor_content=b"\0" * 4), WrongShape, "1 values, expected 2"),
        (proto(FLOAT, [2], tensor_content=b"\0" * 9), WrongShape, "9 bytes in tensor_content"),
        (proto(FLOAT, [-1], float_val=[1]), WrongShape, "[-1]"),
        (proto(FLOAT, [1] * 70, float_val=[1]), WrongShape, "64"),
        (proto(FLOAT, [0, 2**62]), WrongShape, "4611686018427387904"),
        (proto(FLOAT, [2**40], float_val=[1]), RequestTooLarge, "4398046511104 bytes"),
        (proto(STRING, [2**40]), RequestTooLarge, "--body-bytes-max"),
        (proto(STRING, [2000], string_val=[b"a" * 1000]), RequestTooLarge, "2015000 bytes"),
        (proto(UINT8, [2], int_val=[3, 256]), WrongValue, "from 3 to 256 in int_val, which do not fit DT_UINT8"),
        (proto(HALF, [1], half_val=[-1]), WrongValue, "-1"),
        (proto(BOOL, [1], tensor_content=b"\7"), WrongValue, "other than 0 and 1"),
        (proto(STRING, [1], tensor_content=b"\1a"), MalformedRequest, "string_val"),
        (TensorProto(dtype=FLOAT, tensor_shape={"unknown_rank": True}), WrongShape, "unknown rank"),
    ],
)
def test_what_does_not_fit_is_told_with_the_value(message: object, error: type[CallerError], words: str) -> None:
    with pytest.raises(error) as caught:
        read(message)
    assert words in caught.value.message
    assert "'x'" in caught.value.message


def test_the_output_filter_names_what_is_wanted_once() -> None:
    assert translate.predict(PredictRequest(output_filter=["b", "a"]), BYTES_MAX).outputs == ("b", "a")
    with pytest.raises(MalformedRequest, match="twice"):
        translate.predict(PredictRequest(output_filter=["b", "b"]), BYTES_MAX)


def test_a_model_spec_asks_for_a_version_or_a_label_or_the_newest() -> None:
    assert translate.asked_version(ModelSpec(name="m")) == (None, None)
    assert translate.asked_version(ModelSpec(name="m", version={"value": 4})) == (4, None)
    assert translate.asked_version(ModelSpec(name="m", version={"value": 0})) == (0, None)
    assert translate.asked_version(ModelSpec(name="m", version_label="canary")) == (None, "canary")
    assert translate.asked_version(ModelSpec(name="m", version_label="")) == (None, "")


def test_a_signature_answers_to_its_own_name_and_the_usual_one() -> None:
    named = Signature((), (), "twice")
    for name in ("", "serving_default", "twice"):
        assert chosen(named, name) is named
    for name in ("classify", "Twice", None, ["twice"], {}):
        with pytest.raises(UnknownSignature, match="this model has 'twice'"):
            chosen(named, name)


def test_each_signature_answers_to_its_name_and_the_model_s_own_to_none() -> None:
    usual, sums = Signature((), ()), Signature((), (), "sums", results.REGRESS)
    own = Signature((), (), "twice", further=(usual, sums), left_out=(("parsed", "it parses strings"),))
    assert [chosen(own, name) for name in ("", "twice", "serving_default", "sums")] == [own, own, usual, sums]
    assert [word_for(each, own) for each in (own, usual, sums)] == ["", "serving_default", "sums"]
    assert [own.of(name) for name in ("", "serving_default", "sums")] == [own, usual, sums]
    with pytest.raises(UnknownSignature, match="'parsed' of this model is not served: it parses strings"):
        chosen(own, "parsed")
    with pytest.raises(UnknownSignature, match="has 'twice', 'serving_default', 'sums'; not served are 'parsed'"):
        chosen(own, "gone")
    with pytest.raises(UnknownSignature, match="'gone' any more"):
        own.of("gone")


def test_metadata_tells_all_signatures() -> None:
    further = Signature(HALVE.inputs, HALVE.outputs, "sums", results.REGRESS)
    served = FakeServed("m", 2, msgspec.structs.replace(HALVE, further=(further,)), halve)
    found = SignatureDefMap()
    translate.metadata(served).metadata["signature_def"].Unpack(found)
    assert {name: each.method_name for name, each in found.signature_def.items()} == {
        "serving_default": results.PREDICT, "sums": results.REGRESS,
    }  # fmt: skip


def test_an_answer_names_the_signature_that_was_asked() -> None:
    asked = PredictResponse.FromString(translate.response("m", 3, "twice", {}))
    assert asked.model_spec.signature_name == "twice"


def test_status_tells_every_version_the_newest_first() -> None:
    versions = [FakeServed("m", number, HALVE, halve) for number in (1, 2, 3, 4)]
    states = ("AVAILABLE", "FAILED", "LOADING", "BREWING")
    for served, state in zip(versions, states, strict=True):
        served.state = state
    versions[1].reason = "no such file"
    told = translate.status(versions).model_version_status
    assert [(each.version, each.state) for each in told] == [(4, 0), (3, 20), (2, 50), (1, 30)]
    assert [(each.status.error_code, each.status.error_message) for each in told] == [
        (0, ""),
        (0, ""),
        (2, "no such file"),
        (0, ""),
    ]


def test_metadata_holds_the_signature() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 3)), TensorSpec("s", "BYTES", None)), HALVE.outputs)
    answer = translate.metadata(FakeServed("m", 2, signature, halve))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("m", 2)
    found = SignatureDefMap()
    assert answer.metadata["signature_def"].type_url.endswith("/tensorflow.serving.SignatureDefMap")
    assert answer.metadata["signature_def"].Unpack(found)
    inputs = found.signature_def["serving_default"].inputs
    assert [dim.size for dim in inputs["x"].tensor_shape.dim] == [-1, 3]
    assert (inputs["x"].dtype, inputs["s"].dtype) == (FLOAT, STRING)
    assert inputs["s"].tensor_shape.unknown_rank
