"""TensorFlow Serving's `PredictionService` and `ModelService`, as stock clients call them; on the owner's loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest
from tidemill.doors.grpc_call import Call, Calls, parsed, service_handler
from tidemill.doors.tfserving import translate_grpc as translate

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

GetModelMetadataRequest = schemas.message("tensorflow.serving.GetModelMetadataRequest")
GetModelStatusRequest = schemas.message("tensorflow.serving.GetModelStatusRequest")
PredictRequest = schemas.message("tensorflow.serving.PredictRequest")


def handlers(calls: Calls) -> tuple[grpc.GenericRpcHandler, ...]:
    """The methods of both services."""
    prediction = service_handler(
        PREDICTION_SERVICE,
        [
            ("Predict", calls.handler(partial(_predict, calls))),
            ("GetModelMetadata", calls.handler(partial(_metadata, calls))),
        ],
    )
    model = service_handler(MODEL_SERVICE, [("GetModelStatus", calls.handler(partial(_status, calls)))])
    return prediction, model


async def _predict(calls: Calls, call: Call) -> bytes:
    message = parsed(PredictRequest, call.body)
    spec = message.model_spec
    served = _found(calls, call, spec)
    calls.service.gate.limit(call.caller, served)
    translate.check_signature(spec)
    for name in message.inputs:
        served.signature.input(name)  # before a short message for an unknown input is made into a long tensor
    word = partial(translate.response, served.name, served.version)
    return await calls.predict(call, served, translate.predict(message, calls.body_bytes_max), word)


async def _metadata(calls: Calls, call: Call) -> bytes:
    message = parsed(GetModelMetadataRequest, call.body)
    fields = set(message.metadata_field)
    if fields != {"signature_def"}:
        raise MalformedRequest(f"metadata_field is {sorted(fields)}; expected ['signature_def']")
    return bytes(translate.metadata(_found(calls, call, message.model_spec)).SerializeToString())


async def _status(calls: Calls, call: Call) -> bytes:
    message = parsed(GetModelStatusRequest, call.body)
    return bytes(translate.status(_found(calls, call, message.model_spec)).SerializeToString())


def _found(calls: Calls, call: Call, spec: Any) -> Served:
    return calls.find(call, spec.name, translate.version(spec))
