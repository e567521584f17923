"""The other side of the compatibility tests: run by the Python of an environment with TensorFlow's stock client.

Reads one JSON object a line, answers one a line. Bytes are hexadecimal.
"""

import json
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

MODULES = (
    tensor_pb2,
    tensor_shape_pb2,
    meta_graph_pb2,
    saved_model_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    example_pb2,
    input_pb2,
    classification_pb2,
    regression_pb2,
    inference_pb2,
    model_server_config_pb2,
    prediction_log_pb2,
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


def made_input(asked):
    """`examples` and `context` as `tf.train.Example`s."""
    kinds = {int: ("int64_list", tf.train.Int64List), float: ("float_list", tf.train.FloatList)}

    def feature(values):
        if isinstance(values[0], str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))
        name, kind = kinds[type(values[0])]
        return tf.train.Feature(**{name: kind(value=values)})

    def example(features):
        named = {name: feature(values) for name, values in features.items()}
        return tf.train.Example(features=tf.train.Features(feature=named))

    made = input_pb2.Input()
    if asked.get("context"):
        made.example_list_with_context.examples.extend(map(example, asked["examples"]))
        made.example_list_with_context.context.CopyFrom(example(asked["context"]))
    else:
        made.example_list.examples.extend(map(example, asked["examples"]))
    return made


def answered(asked, service, method, request):
    """What the stock stub gives; its refusal as status, our code and details."""
    with grpc.insecure_channel(asked["address"]) as channel:
        module = {"ModelService": model_service_pb2_grpc.ModelServiceStub}
        stub = module.get(service, prediction_service_pb2_grpc.PredictionServiceStub)(channel)
        metadata = (("authorization", "Bearer " + asked["key"]),) if asked.get("key") else ()
        try:
            return getattr(stub, method)(request, timeout=20, metadata=metadata), None
        except grpc.RpcError as error:
            code = dict(error.trailing_metadata()).get("tidemill-code")
            return None, {"status": error.code().name, "code": code, "details": error.details()}


def specified(spec, asked):
    spec.name = asked["model"]
    spec.signature_name = asked.get("signature", "")
    if "version" in asked:
        spec.version.value = asked["version"]
    if "label" in asked:
        spec.version_label = asked["label"]


def told_classes(result):
    return [[[each.label, each.score] for each in row.classes] for row in result.classifications]


def classify(asked):
    request = classification_pb2.ClassificationRequest(input=made_input(asked))
    specified(request.model_spec, asked)
    answer, refusal = answered(asked, "PredictionService", "Classify", request)
    return refusal or {"classes": told_classes(answer.result), "version": answer.model_spec.version.value}


def regress(asked):
    request = regression_pb2.RegressionRequest(input=made_input(asked))
    specified(request.model_spec, asked)
    answer, refusal = answered(asked, "PredictionService", "Regress", request)
    if refusal:
        return refusal
    return {"values": [each.value for each in answer.result.regressions], "version": answer.model_spec.version.value}


def multi_inference(asked):
    request = inference_pb2.MultiInferenceRequest(input=made_input(asked))
    for verb in asked["verbs"]:
        task = request.tasks.add(method_name=f"tensorflow/serving/{verb}")
        specified(task.model_spec, asked)
    answer, refusal = answered(asked, "PredictionService", "MultiInference", request)
    if refusal:
        return refusal
    told = []
    for each in answer.results:
        if each.WhichOneof("result") == "regression_result":
            told.append([value.value for value in each.regression_result.regressions])
        else:
            told.append(told_classes(each.classification_result))
    return {"results": told, "versions": [each.model_spec.version.value for each in answer.results]}


def status(asked):
    request = get_model_status_pb2.GetModelStatusRequest()
    specified(request.model_spec, asked)
    answer, refusal = answered(asked, "ModelService", "GetModelStatus", request)
    state = get_model_status_pb2.ModelVersionStatus.State
    return refusal or {
        "versions": [
            [each.version, state.Name(each.state), each.status.error_code, each.status.error_message]
            for each in answer.model_version_status
        ]
    }


def reload(asked):
    request = model_management_pb2.ReloadConfigRequest()
    for told in asked["models"]:
        config = request.config.model_config_list.config.add(name=told["name"], base_path=told["base_path"])
        config.model_platform = "tensorflow"
        if told.get("versions"):
            config.model_version_policy.specific.versions.extend(told["versions"])
        for label, version in told.get("labels", {}).items():
            config.version_labels[label] = version
    answer, refusal = answered(asked, "ModelService", "HandleReloadConfigRequest", request)
    return refusal or {"error_code": answer.status.error_code}


def warm_up(asked):
    """A file of warm-up requests: Predict, Classify, Regress and MultiInference, each in a log of its own."""
    predicted = predict_pb2.PredictRequest()
    specified(predicted.model_spec, asked)
    for name, values in asked["tensors"].items():
        predicted.inputs[name].CopyFrom(tf.make_tensor_proto(np.array(values, np.float32)))
    classified = classification_pb2.ClassificationRequest(input=made_input(asked))
    specified(classified.model_spec, asked)
    regressed = regression_pb2.RegressionRequest(input=made_input(asked))
    specified(regressed.model_spec, asked)
    several = inference_pb2.MultiInferenceRequest(input=made_input(asked))
    for verb in ("classify", "regress"):
        specified(several.tasks.add(method_name=f"tensorflow/serving/{verb}").model_spec, asked)
    logs = (
        prediction_log_pb2.PredictionLog(predict_log={"request": predicted}),
        prediction_log_pb2.PredictionLog(classify_log={"request": classified}),
        prediction_log_pb2.PredictionLog(regress_log={"request": regressed}),
        prediction_log_pb2.PredictionLog(multi_inference_log={"request": several}),
    )
    with tf.io.TFRecordWriter(asked["path"]) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    return {"records": len(logs)}


def records(asked):
    return {"records": [record.numpy().hex() for record in tf.data.TFRecordDataset(asked["path"])]}


VERBS = {
    verb.__name__: verb
    for verb in (
        reread,
        to_array,
        to_proto,
        predict,
        metadata,
        classify,
        regress,
        multi_inference,
        status,
        reload,
        warm_up,
        records,
    )
}

for line in sys.stdin:
    order = json.loads(line)
    sys.stdout.write(json.dumps(VERBS[order["verb"]](order)) + "\n")
    sys.stdout.flush()
