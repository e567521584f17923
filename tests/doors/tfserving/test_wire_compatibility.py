"""Our schemas, tensors and door against TensorFlow's own, which run in an environment of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import KEY, FakeService
from message_strategies import arrays, messages, same
from tidemill.core import schemas
from tidemill.core.schemas.datatypes import TF_DATATYPES
from tidemill.core.settings import Settings
from tidemill.core.tensor import DATATYPES, DTYPES, Array
from tidemill.doors import grpc_server
from tidemill.doors.tfserving import tensor_proto
from tidemill.doors.tfserving import translate_grpc as translate

Ask = Callable[..., Any]
QUICK = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NAMES = [
    "tensorflow.TensorProto",
    "tensorflow.TensorShapeProto",
    "tensorflow.TensorInfo",
    "tensorflow.SignatureDef",
    "tensorflow.MetaGraphDef",
    "tensorflow.SavedModel",
    "tensorflow.serving.ModelSpec",
    "tensorflow.serving.PredictRequest",
    "tensorflow.serving.PredictResponse",
    "tensorflow.serving.SignatureDefMap",
    "tensorflow.serving.GetModelMetadataRequest",
    "tensorflow.serving.GetModelStatusRequest",
    "tensorflow.serving.GetModelStatusResponse",
    "tensorflow.Example",
    "tensorflow.serving.Input",
    "tensorflow.serving.ClassificationRequest",
    "tensorflow.serving.ClassificationResponse",
    "tensorflow.serving.RegressionRequest",
    "tensorflow.serving.RegressionResponse",
    "tensorflow.serving.MultiInferenceRequest",
    "tensorflow.serving.MultiInferenceResponse",
    "tensorflow.serving.ModelConfigList",
    "tensorflow.serving.PredictionLog",
]
TensorProto = schemas.message("tensorflow.TensorProto")
PredictResponse = schemas.message("tensorflow.serving.PredictResponse")
TF_NAMES = {
    "FP32": "float32",
    "FP64": "float64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "BYTES": "string",
} | {name: name.lower() for name in DTYPES if "INT" in name}


@QUICK
@given(st.data())
@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_tensorflow_reads_and_gives_back(tensorflow_side: Ask, name: str, data: st.DataObject) -> None:
    ours = schemas.message(name)
    message = data.draw(messages(ours))
    answer = tensorflow_side("reread", name=name, encoded=message.SerializeToString().hex())
    assert ours.FromString(bytes.fromhex(answer["encoded"])) == message
    assert answer["text"] == str(message)  # the same fields by name, not only the same bytes passed through


@QUICK
@given(array=st.sampled_from(list(DTYPES)).flatmap(arrays))
def test_tensorflow_reads_our_tensors(tensorflow_side: Ask, array: Array) -> None:
    answer = PredictResponse.FromString(translate.response("m", 1, "", {"y": array}))
    proto = answer.outputs["y"].SerializeToString()
    read = tensorflow_side("to_array", encoded=proto.hex())
    assert tuple(read["shape"]) == array.shape
    if array.dtype == object:
        assert [bytes.fromhex(value) for value in read["values"]] == array.ravel().tolist()
    else:
        assert read["dtype"] == array.dtype.name
        assert bytes.fromhex(read["values"]) == quiet(array).tobytes()


@QUICK
@given(array=st.sampled_from(list(DTYPES)).flatmap(arrays), listed=st.booleans())
def test_we_read_tensorflows_tensors(tensorflow_side: Ask, array: Array, listed: bool) -> None:
    datatype = DATATYPES[array.dtype]
    if array.dtype == object:
        values: Any = [value.hex() for value in array.ravel()]
    else:
        array = np.nan_to_num(array.astype(array.dtype)) if datatype in ("FP16", "FP32", "FP64") else array
        values = array.tobytes().hex()
    # From a list, TensorFlow itself loses the low bits of a large UINT64: it goes through floats.
    listed = listed and array.size > 0 and datatype not in ("BF16", "BYTES", "UINT64")
    made = tensorflow_side("to_proto", dtype=TF_NAMES[datatype], shape=array.shape, values=values, listed=listed)
    proto = TensorProto.FromString(bytes.fromhex(made["encoded"]))
    assert TF_DATATYPES[proto.dtype] == datatype
    assert same(tensor_proto.tensor("x", proto, 1 << 20), array)


async def test_the_stock_client_is_answered(tensorflow_side: Ask) -> None:
    server, port = await grpc_server.start(FakeService(), "127.0.0.1", 0, Settings())
    where = {"address": f"127.0.0.1:{port}", "model": "half", "key": KEY}
    try:
        answer = await asyncio.to_thread(tensorflow_side, "predict", x=[[1, 2], [3, 5]], **where)
        told = await asyncio.to_thread(tensorflow_side, "metadata", **where)
    finally:
        await server.stop(0)
    assert answer["float_val"] == [0.5, 1.0, 1.5, 2.5]
    assert answer["array"] == [[0.5, 1.0], [1.5, 2.5]]
    assert (answer["version"], answer["signature_name"]) == (1, "serving_default")
    assert told == {
        "inputs": {"x": ["float32", [-1, -1]]},
        "method": "tensorflow/serving/predict",
        "states": [[1, 30]],
    }


def quiet(array: Array) -> Array:
    """As it comes out of TensorFlow's reader, which takes float_val through Python: a NaN has no other bits."""
    if array.dtype == np.float32:
        return np.array(array.ravel().tolist(), np.float32).reshape(array.shape)
    return array
