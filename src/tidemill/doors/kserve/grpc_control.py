"""V2's configuration, statistics and repository over gRPC, and the calls that are refused; runs on the owner's loop."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict

from tidemill.core import schemas
from tidemill.core.errors import MalformedRequest, NotOffered
from tidemill.core.text import short
from tidemill.doors.grpc_call import Call, Calls, parsed
from tidemill.doors.kserve import model_config, repository, statistics
from tidemill.doors.kserve import translate_grpc as translate
from tidemill.doors.kserve.extensions import REFUSED
from tidemill.doors.way import version_of

ModelConfigRequest = schemas.message("inference.ModelConfigRequest")
ModelConfigResponse = schemas.message("inference.ModelConfigResponse")
ModelStatisticsRequest = schemas.message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = schemas.message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = schemas.message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = schemas.message("inference.RepositoryIndexResponse")
RepositoryModelLoadRequest = schemas.message("inference.RepositoryModelLoadRequest")
RepositoryModelUnloadRequest = schemas.message("inference.RepositoryModelUnloadRequest")

NOT_OFFERED = {
    "SystemSharedMemoryStatus": REFUSED["SystemSharedMemory"],
    "SystemSharedMemoryRegister": REFUSED["SystemSharedMemory"],
    "SystemSharedMemoryUnregister": REFUSED["SystemSharedMemory"],
    "CudaSharedMemoryStatus": REFUSED["CudaSharedMemory"],
    "CudaSharedMemoryRegister": REFUSED["CudaSharedMemory"],
    "CudaSharedMemoryUnregister": REFUSED["CudaSharedMemory"],
    "TraceSetting": REFUSED["TraceSetting"],
    "LogSettings": REFUSED["LogSettings"],
}
"""Triton's method -> what is said to those who call it. The service's schema, and so reflection, leaves them out."""


async def config(calls: Calls, call: Call) -> bytes:
    message = parsed(ModelConfigRequest, call.body)
    served = calls.find(call, message.name, version_of(message.name, message.version))
    policy = repository.policy(calls.service, served.name)
    return _encoded({"config": model_config.told(served, policy, calls.timeout_s)}, ModelConfigResponse)


async def stats(calls: Calls, call: Call) -> bytes:
    message = parsed(ModelStatisticsRequest, call.body)
    found = statistics.chosen(calls.service.fleet, message.name, version_of(message.name, message.version))
    return _encoded(statistics.told(found), ModelStatisticsResponse)


async def index(calls: Calls, call: Call) -> bytes:
    message = parsed(RepositoryIndexRequest, call.body)
    _check_repository(message)
    return _encoded({"models": repository.index(calls.service, message.ready)}, RepositoryIndexResponse)


async def load(calls: Calls, call: Call) -> bytes:
    message = parsed(RepositoryModelLoadRequest, call.body)
    _check_repository(message)
    given = translate.parameters(message.parameters)
    await repository.load(calls.service, message.model_name, given)
    return b""  # an empty RepositoryModelLoadResponse


async def unload(calls: Calls, call: Call) -> bytes:
    message = parsed(RepositoryModelUnloadRequest, call.body)
    _check_repository(message)
    await repository.unload(calls.service, message.model_name, translate.parameters(message.parameters))
    return b""  # an empty RepositoryModelUnloadResponse


async def not_offered(words: str, call: Call) -> bytes:
    raise NotOffered(words)


def _check_repository(message: Any) -> None:
    if message.repository_name:
        raise MalformedRequest(
            f"repository_name is {short(message.repository_name)}; this service has one repository, leave it empty"
        )


def _encoded(told: dict[str, Any], message_class: Any) -> bytes:
    return bytes(ParseDict(told, message_class()).SerializeToString())
