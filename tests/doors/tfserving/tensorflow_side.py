"""The other side of the compatibility tests: run by the Python of an environment with TensorFlow's stock client.

Reads one JSON object a line, answers one a line. Bytes are hexadecimal.
"""

import json
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODULES = (
    tensor_pb2,
    tensor_shape_pb2,
    meta_graph_pb2,
    saved_model_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)


def message_class(name):
    package, _, short = name.rpartition(".")
    for module in MODULES:
        if module.DESCRIPTOR.package == package and hasattr(module, short):
            return getattr(module, short)
    raise LookupError(name)


def reread(asked):
    message = message_class(asked["name"]).FromString(bytes.fromhex(asked["encoded"]))
    return {"encoded": message.SerializeToString().hex(), "text": str(message)}


def to_array(asked):
    array = tf.make_ndarray(tensor_pb2.TensorProto.FromString(bytes.fromhex(asked["encoded"])))
    return described(array)


def described(array):
    strings = array.dtype == object
    values = [bytes(value).hex() for value in array.ravel()] if strings else array.tobytes().hex()
    return {"dtype": array.dtype.name, "shape": array.shape, "values": values}


def to_proto(asked):
    if asked["dtype"] == "string":
        value = np.array([bytes.fromhex(each) for each in asked["values"]], object).reshape(asked["shape"])
        proto = tf.make_tensor_proto(value, tf.string)
    else:
        dtype = tf.as_dtype(asked["dtype"])
        value = np.frombuffer(bytes.fromhex(asked["values"]), dtype.as_numpy_dtype).reshape(asked["shape"])
        # As lists, values go to the typed fields.
        given = value.tolist() if asked["listed"] else value
        proto = tf.make_tensor_proto(given, dtype, shape=asked["shape"])
    return {"encoded": proto.SerializeToString().hex()}


def predict(asked):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = asked["model"]
    request.model_spec.signature_name = "serving_default"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(asked["x"], np.float32)))
    with grpc.insecure_channel(asked["address"]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(request, timeout=10, metadata=(("authorization", "Bearer " + asked["key"]),))
    return {
        "float_val": list(answer.outputs["y"].float_val),
        "array": tf.make_ndarray(answer.outputs["y"]).tolist(),
        "version": answer.model_spec.version.value,
        "signature_name": answer.model_spec.signature_name,
    }


def metadata(asked):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = asked["model"]
    with grpc.insecure_channel(asked["address"]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.GetModelMetadata(request, timeout=10, metadata=(("authorization", "Bearer " + asked["key"]),))
        statuses = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
            get_model_status_pb2.GetModelStatusRequest(model_spec=request.model_spec),
            timeout=10,
            metadata=(("authorization", "Bearer " + asked["key"]),),
        )
    found = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    return {
        "inputs": {
            name: [tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim]]
            for name, info in signature.inputs.items()
        },
        "method": signature.method_name,
        "states": [[each.version, each.state] for each in statuses.model_version_status],
    }


VERBS = {verb.__name__: verb for verb in (reread, to_array, to_proto, predict, metadata)}

for line in sys.stdin:
    order = json.loads(line)
    sys.stdout.write(json.dumps(VERBS[order["verb"]](order)) + "\n")
    sys.stdout.flush()
