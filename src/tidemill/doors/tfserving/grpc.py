"""TensorFlow Serving's `PredictionService` and `ModelService`, as stock clients call them; on the owner's loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import Forbidden, MalformedRequest, UnknownRoute
from tidemill.core.request import Predict
from tidemill.core.tensor import Tensors
from tidemill.doors.grpc_call import Call, Calls, parsed, service_handler
from tidemill.doors.tfserving import examples, inference_grpc, results
from tidemill.doors.tfserving import translate_grpc as translate
from tidemill.doors.tfserving.spec import check_signature, versions
from tidemill.doors.way import check_tensors
from tidemill.repository import tf_config

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

ClassificationRequest = schemas.message("tensorflow.serving.ClassificationRequest")
ClassificationResponse = schemas.message("tensorflow.serving.ClassificationResponse")
GetModelMetadataRequest = schemas.message("tensorflow.serving.GetModelMetadataRequest")
GetModelStatusRequest = schemas.message("tensorflow.serving.GetModelStatusRequest")
MultiInferenceRequest = schemas.message("tensorflow.serving.MultiInferenceRequest")
MultiInferenceResponse = schemas.message("tensorflow.serving.MultiInferenceResponse")
PredictRequest = schemas.message("tensorflow.serving.PredictRequest")
RegressionRequest = schemas.message("tensorflow.serving.RegressionRequest")
RegressionResponse = schemas.message("tensorflow.serving.RegressionResponse")
ReloadConfigRequest = schemas.message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = schemas.message("tensorflow.serving.ReloadConfigResponse")


INFERS = frozenset({"Predict", "Classify", "Regress", "MultiInference"})
"""What a trace is made of; the others ask about models."""


def handlers(calls: Calls) -> tuple[grpc.GenericRpcHandler, ...]:
    """The methods of both services."""
    prediction = {
        "Predict": _predict,
        "Classify": _classify,
        "Regress": _regress,
        "MultiInference": _multi_inference,
        "GetModelMetadata": _metadata,
    }
    model = {"GetModelStatus": _status, "HandleReloadConfigRequest": _reload}
    return tuple(
        service_handler(
            service,
            [(name, calls.handler(partial(method, calls), infers=name in INFERS)) for name, method in methods.items()],
        )
        for service, methods in ((PREDICTION_SERVICE, prediction), (MODEL_SERVICE, model))
    )


async def _predict(calls: Calls, call: Call) -> bytes:
    message = parsed(PredictRequest, call.body)
    spec = message.model_spec
    served = _admitted(calls, call, spec)
    for name in message.inputs:
        served.signature.input(name)  # before a short message for an unknown input is made into a long tensor
    word = partial(translate.response, served.name, served.version, spec.signature_name)
    return await calls.predict(call, served, translate.predict(message, calls.body_bytes_max), word)


async def _classify(calls: Calls, call: Call) -> bytes:
    message = parsed(ClassificationRequest, call.body)
    served = _admitted(calls, call, message.model_spec)
    wanted = results.scoring(served.signature)
    given = inference_grpc.examples(message.input)

    def word(tensors: Tensors) -> bytes:
        found = results.ranking(wanted, served.labels, tensors, len(given.each))
        result = ClassificationResponse(result=inference_grpc.classification(found))
        return _worded(result, served, message.model_spec)

    return await calls.predict(call, served, _work(calls, served, given, wanted.outputs), word)


async def _regress(calls: Calls, call: Call) -> bytes:
    message = parsed(RegressionRequest, call.body)
    served = _admitted(calls, call, message.model_spec)
    wanted = results.regressed(served.signature)
    given = inference_grpc.examples(message.input)

    def word(tensors: Tensors) -> bytes:
        found = results.values(wanted, tensors, len(given.each))
        return _worded(RegressionResponse(result=inference_grpc.regression(found)), served, message.model_spec)

    return await calls.predict(call, served, _work(calls, served, given, (wanted,)), word)


async def _multi_inference(calls: Calls, call: Call) -> bytes:
    """The model runs once for all tasks, and is charged once."""
    message = parsed(MultiInferenceRequest, call.body)
    tasks = message.tasks
    inference_grpc.check_tasks(tasks)
    served = _admitted(calls, call, *(task.model_spec for task in tasks))
    signature = served.signature
    scoring = any(task.method_name == results.CLASSIFY for task in tasks) and results.scoring(signature)
    regressed = any(task.method_name == results.REGRESS for task in tasks) and results.regressed(signature)
    outputs = dict.fromkeys([*(scoring.outputs if scoring else ()), *([regressed] if regressed else ())])
    given = inference_grpc.examples(message.input)
    count = len(given.each)

    def word(tensors: Tensors) -> bytes:
        answer = MultiInferenceResponse()
        for task in tasks:
            result = answer.results.add()
            spec = translate.model_spec(served.name, served.version, task.model_spec.signature_name)
            result.model_spec.MergeFromString(spec)
            if task.method_name == results.CLASSIFY and scoring:
                found = results.ranking(scoring, served.labels, tensors, count)
                result.classification_result.CopyFrom(inference_grpc.classification(found))
            elif regressed:
                values = results.values(regressed, tensors, count)
                result.regression_result.CopyFrom(inference_grpc.regression(values))
        return bytes(answer.SerializeToString())

    return await calls.predict(call, served, _work(calls, served, given, tuple(outputs)), word)


async def _metadata(calls: Calls, call: Call) -> bytes:
    message = parsed(GetModelMetadataRequest, call.body)
    fields = set(message.metadata_field)
    if fields != {"signature_def"}:
        raise MalformedRequest(f"metadata_field is {sorted(fields)}; expected ['signature_def']")
    return bytes(translate.metadata(_found(calls, call, message.model_spec)).SerializeToString())


async def _status(calls: Calls, call: Call) -> bytes:
    spec = parsed(GetModelStatusRequest, call.body).model_spec
    found = versions(calls.service.fleet, spec.name, *translate.asked_version(spec))
    return bytes(translate.status(found).SerializeToString())


async def _reload(calls: Calls, call: Call) -> bytes:
    """What TensorFlow Serving lets anybody do, an admin key does here."""
    if not call.caller.admin:
        raise Forbidden(f"key {call.caller.key} may not load models; `tidemill keys create --admin` makes one that may")
    models = calls.service.models
    if models is None:
        raise UnknownRoute("this service loads no models while it runs; start it again with those you want")
    await models.reload(tf_config.entries(parsed(ReloadConfigRequest, call.body).config))
    return bytes(ReloadConfigResponse(status={}).SerializeToString())


def _found(calls: Calls, call: Call, spec: Any) -> Served:
    return calls.find(call, spec.name, *translate.asked_version(spec))


def _admitted(calls: Calls, call: Call, *specs: Any) -> Served:
    """The version that `specs`, which differ in nothing but the signature, ask for, once limits allow it."""
    served = _found(calls, call, specs[0])
    calls.service.gate.limit(call.caller, served)
    check_tensors(served)
    for spec in specs:
        check_signature(served.signature, spec.signature_name)
    return served


def _work(calls: Calls, served: Served, given: examples.Examples, outputs: tuple[str, ...]) -> Predict:
    return Predict(examples.tensors(served.signature, given, calls.body_bytes_max), outputs)


def _worded(response: Any, served: Served, spec: Any) -> bytes:
    return bytes(response.SerializeToString()) + translate.answered(served.name, served.version, spec.signature_name)
