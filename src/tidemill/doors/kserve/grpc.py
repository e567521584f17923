"""KServe V2's `inference.GRPCInferenceService`, as Triton clients call it; runs on the owner's loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

import tidemill
from tidemill.core import schemas
from tidemill.core.errors import ModelNotReady, UnknownModel, UnknownVersion
from tidemill.doors.grpc_call import Call, Calls, parsed, service_handler
from tidemill.doors.grpc_stream import stream_handler
from tidemill.doors.kserve import grpc_control, grpc_infer
from tidemill.doors.kserve import translate_grpc as translate
from tidemill.doors.kserve.extensions import extensions
from tidemill.doors.way import version_of

SERVICE = "inference.GRPCInferenceService"

ModelMetadataRequest = schemas.message("inference.ModelMetadataRequest")
ModelReadyRequest = schemas.message("inference.ModelReadyRequest")
ModelReadyResponse = schemas.message("inference.ModelReadyResponse")
ServerLiveResponse = schemas.message("inference.ServerLiveResponse")
ServerMetadataResponse = schemas.message("inference.ServerMetadataResponse")
ServerReadyResponse = schemas.message("inference.ServerReadyResponse")


def handler(calls: Calls) -> grpc.GenericRpcHandler:
    """The service's methods; whoever asks may know whether the server is up."""
    infer = grpc_infer.Infer(calls)
    return service_handler(
        SERVICE,
        [
            ("ServerLive", calls.handler(_server_live, keyless=True)),
            ("ServerReady", calls.handler(partial(_server_ready, calls), keyless=True)),
            ("ServerMetadata", calls.handler(partial(_server_metadata, calls), keyless=True)),
            ("ModelReady", calls.handler(partial(_model_ready, calls))),
            ("ModelMetadata", calls.handler(partial(_model_metadata, calls))),
            ("ModelInfer", calls.handler(infer.infer, infers=True)),
            ("ModelStreamInfer", stream_handler(calls, infer.streamed, grpc_infer.refused)),
            ("ModelConfig", calls.handler(partial(grpc_control.config, calls))),
            ("ModelStatistics", calls.handler(partial(grpc_control.stats, calls))),
            ("RepositoryIndex", calls.handler(partial(grpc_control.index, calls), admin=True)),
            ("RepositoryModelLoad", calls.handler(partial(grpc_control.load, calls), admin=True)),
            ("RepositoryModelUnload", calls.handler(partial(grpc_control.unload, calls), admin=True)),
            *(
                (name, calls.handler(partial(grpc_control.not_offered, words)))
                for name, words in grpc_control.NOT_OFFERED.items()
            ),
        ],
    )


async def _model_metadata(calls: Calls, call: Call) -> bytes:
    message = parsed(ModelMetadataRequest, call.body)
    served = calls.find(call, message.name, version_of(message.name, message.version))
    return _encoded(translate.metadata(served))


async def _model_ready(calls: Calls, call: Call) -> bytes:
    message = parsed(ModelReadyRequest, call.body)
    try:
        calls.find(call, message.name, version_of(message.name, message.version))
    except (ModelNotReady, UnknownModel, UnknownVersion):  # Triton's word for what is not there, too
        return _encoded(ModelReadyResponse(ready=False))
    return _encoded(ModelReadyResponse(ready=True))


async def _server_live(call: Call) -> bytes:
    return _encoded(ServerLiveResponse(live=True))


async def _server_ready(calls: Calls, call: Call) -> bytes:
    return _encoded(ServerReadyResponse(ready=calls.is_ready()))


async def _server_metadata(calls: Calls, call: Call) -> bytes:
    told = {"name": "tidemill", "version": tidemill.__version__, "extensions": extensions(calls.service)}
    return _encoded(ServerMetadataResponse(**told))


def _encoded(message: Any) -> bytes:
    return bytes(message.SerializeToString())
