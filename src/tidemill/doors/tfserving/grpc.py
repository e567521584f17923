"""TensorFlow Serving's `PredictionService` and `ModelService`, as stock clients call them; on the owner's loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import Forbidden, MalformedRequest, UnknownRoute
from tidemill.core.request import Predict
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors.frames import Frames
from tidemill.doors.grpc_call import Call, Calls, Method, parsed, service_handler
from tidemill.doors.tfserving import examples, inference_grpc, results
from tidemill.doors.tfserving import translate_grpc as translate
from tidemill.doors.tfserving.spec import chosen, versions, word_for
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
    prediction: dict[str, Method] = {
        "Predict": _Predict(calls),
        "Classify": partial(_classify, calls),
        "Regress": partial(_regress, calls),
        "MultiInference": partial(_multi_inference, calls),
        "GetModelMetadata": partial(_metadata, calls),
    }
    model: dict[str, Method] = {
        "GetModelStatus": partial(_status, calls),
        "HandleReloadConfigRequest": partial(_reload, calls),
    }
    return tuple(
        service_handler(
            service,
            [(name, calls.handler(method, infers=name in INFERS)) for name, method in methods.items()],
        )
        for service, methods in ((PREDICTION_SERVICE, prediction), (MODEL_SERVICE, model))
    )


class _Predict:
    """`Predict`; what stands around a request's numbers is kept, and not read again when it comes again."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._frames = Frames(self._read)

    async def __call__(self, call: Call) -> bytes:
        calls, body = self._calls, call.body
        frame = self._frames.find(body)
        message: Any = parsed(PredictRequest, body) if frame is None else None
        asked = translate.asked(message.model_spec) if frame is None else frame.about
        served = _admitted(calls, call, asked)
        signature = chosen(served.signature, asked.signature)
        name = word_for(signature, served.signature)
        if frame is not None:
            work = frame.work(body, name)
        else:
            for each in message.inputs:
                signature.input(each)  # before a short message for an unknown input is made into a long tensor
            work = translate.predict(message, calls.body_bytes_max, name)
            self._frames.learn(body, asked, work)
        word = partial(translate.response, served.name, served.version, asked.signature)
        return await calls.predict(call, served, work, word, frame)

    def _read(self, body: bytes) -> tuple[translate.Asked, Predict]:
        message = parsed(PredictRequest, body)
        return translate.asked(message.model_spec), translate.predict(message, self._calls.body_bytes_max)


async def _classify(calls: Calls, call: Call) -> bytes:
    message = parsed(ClassificationRequest, call.body)
    served = _admitted(calls, call, translate.asked(message.model_spec))
    signature = chosen(served.signature, message.model_spec.signature_name)
    wanted = results.scoring(signature)
    given = inference_grpc.examples(message.input)

    def word(tensors: Tensors) -> bytes:
        found = results.ranking(wanted, served.labels, tensors, len(given.each))
        result = ClassificationResponse(result=inference_grpc.classification(found))
        return _worded(result, served, message.model_spec)

    return await calls.predict(call, served, _work(calls, served, signature, given, wanted.outputs), word)


async def _regress(calls: Calls, call: Call) -> bytes:
    message = parsed(RegressionRequest, call.body)
    served = _admitted(calls, call, translate.asked(message.model_spec))
    signature = chosen(served.signature, message.model_spec.signature_name)
    wanted = results.regressed(signature)
    given = inference_grpc.examples(message.input)

    def word(tensors: Tensors) -> bytes:
        found = results.values(wanted, tensors, len(given.each))
        return _worded(RegressionResponse(result=inference_grpc.regression(found)), served, message.model_spec)

    return await calls.predict(call, served, _work(calls, served, signature, given, (wanted,)), word)


async def _multi_inference(calls: Calls, call: Call) -> bytes:
    """Each signature runs once for all of its tasks; the call is charged once."""
    message = parsed(MultiInferenceRequest, call.body)
    tasks = message.tasks
    inference_grpc.check_tasks(tasks)
    served = _admitted(calls, call, translate.asked(tasks[0].model_spec))
    asked = [_Task(served.signature, task) for task in tasks]
    given = inference_grpc.examples(message.input)
    count = len(given.each)
    outputs: dict[str, dict[str, None]] = {}
    for each in asked:
        outputs.setdefault(each.word, {}).update(dict.fromkeys(each.outputs))
    bytes_max = calls.body_bytes_max // len(outputs)  # for all of them together
    works = {
        name: _work(calls, served, served.signature.of(name), given, tuple(names), bytes_max)
        for name, names in outputs.items()
    }

    def word(answers: Sequence[Tensors]) -> bytes:
        tensors = dict(zip(works, answers, strict=True))
        answer = MultiInferenceResponse()
        for task, each in zip(tasks, asked, strict=True):
            result = answer.results.add()
            spec = translate.model_spec(served.name, served.version, task.model_spec.signature_name)
            result.model_spec.MergeFromString(spec)
            each.tell(result, tensors[each.word], served.labels, count)
        return bytes(answer.SerializeToString())

    return await calls.predict_each(call, served, tuple(works.values()), word)


class _Task:
    """One task of a MultiInference: a signature, as `word` names it, and the `outputs` of it that are asked for."""

    def __init__(self, own: Signature, task: Any) -> None:
        signature = chosen(own, task.model_spec.signature_name)
        self.word = word_for(signature, own)
        self._scoring = results.scoring(signature) if task.method_name == results.CLASSIFY else None
        self._regressed = results.regressed(signature) if self._scoring is None else ""
        self.outputs = self._scoring.outputs if self._scoring else (self._regressed,)

    def tell(self, result: Any, tensors: Tensors, labels: Sequence[str], count: int) -> None:
        if self._scoring is not None:
            found = results.ranking(self._scoring, labels, tensors, count)
            result.classification_result.CopyFrom(inference_grpc.classification(found))
        else:
            values = results.values(self._regressed, tensors, count)
            result.regression_result.CopyFrom(inference_grpc.regression(values))


async def _metadata(calls: Calls, call: Call) -> bytes:
    message = parsed(GetModelMetadataRequest, call.body)
    fields = set(message.metadata_field)
    if fields != {"signature_def"}:
        raise MalformedRequest(f"metadata_field is {sorted(fields)}; expected ['signature_def']")
    return bytes(translate.metadata(_found(calls, call, translate.asked(message.model_spec))).SerializeToString())


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


def _found(calls: Calls, call: Call, asked: translate.Asked) -> Served:
    return calls.find(call, asked.model, asked.version, asked.label)


def _admitted(calls: Calls, call: Call, asked: translate.Asked) -> Served:
    """The version that is asked for, once limits allow it."""
    served = _found(calls, call, asked)
    calls.service.gate.limit(call.caller, served)
    check_tensors(served)
    return served


def _work(
    calls: Calls,
    served: Served,
    signature: Signature,
    given: examples.Examples,
    outputs: tuple[str, ...],
    bytes_max: int | None = None,
) -> Predict:
    inputs = examples.tensors(signature, given, calls.body_bytes_max if bytes_max is None else bytes_max)
    return Predict(inputs, outputs, signature=word_for(signature, served.signature))


def _worded(response: Any, served: Served, spec: Any) -> bytes:
    return bytes(response.SerializeToString()) + translate.answered(served.name, served.version, spec.signature_name)
