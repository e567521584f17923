"""gRPC server reflection from our own schemas, under its old and its new name; runs on the owner's loop.

Whoever asks is told: these schemas are published, and no model is named in them.
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from tidemill.core import schemas
from tidemill.core.errors import TidemillError
from tidemill.core.text import short
from tidemill.doors.grpc_call import Call, Calls, parsed, service_handler
from tidemill.doors.grpc_stream import stream_handler

PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
SERVICES = tuple(f"{package}.ServerReflection" for package in PACKAGES)
NOT_FOUND, UNIMPLEMENTED, INVALID = (
    int(code.value[0])
    for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)
)


def handlers(calls: Calls, services: Sequence[str]) -> tuple[grpc.GenericRpcHandler, ...]:
    """`services` are the names of all gRPC services that are served, these among them."""
    return tuple(
        service_handler(
            f"{package}.ServerReflection",
            [
                (
                    "ServerReflectionInfo",
                    stream_handler(
                        calls, partial(_reflect, package, services), partial(_refused, package), keyless=True
                    ),
                )
            ],
        )
        for package in PACKAGES
    )


async def _reflect(package: str, services: Sequence[str], call: Call) -> bytes:
    asked = parsed(schemas.message(f"{package}.ServerReflectionRequest"), call.body)
    told = schemas.message(f"{package}.ServerReflectionResponse")(valid_host=asked.host, original_request=asked)
    _answer(told, asked, services)
    return bytes(told.SerializeToString())


def _answer(told: Any, asked: Any, services: Sequence[str]) -> None:
    """Our schemas have no extensions, so nobody has numbers of any; a type that has none still has an answer."""
    kind = asked.WhichOneof("message_request")
    wanted = getattr(asked, kind) if kind else ""
    pool = schemas.pool()
    try:
        if kind == "list_services":
            for name in services:
                told.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _files(told, pool.FindFileByName(wanted))
        elif kind == "file_containing_symbol":
            _files(told, _file_of(pool, wanted))
        elif kind == "all_extension_numbers_of_type":
            told.all_extension_numbers_response.base_type_name = pool.FindMessageTypeByName(wanted).full_name
        elif kind == "file_containing_extension":
            raise KeyError(wanted)
        else:
            _error(told, UNIMPLEMENTED, "the request asks for nothing that is known here")
    except KeyError:
        _error(told, NOT_FOUND, f"there is no {short(str(wanted).strip())} among the schemas of this server")


def _file_of(pool: DescriptorPool, symbol: str) -> FileDescriptor:
    """The file of a type, a service, or a method, which the pool itself does not look for. Raises `KeyError`."""
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        found = pool.FindServiceByName(service)
        return found.methods_by_name[method].containing_service.file


def _files(told: Any, file: FileDescriptor) -> None:
    """The file, then all that it needs, each once."""
    found: dict[str, FileDescriptor] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop(0)
        if each.name not in found:
            found[each.name] = each
            waiting += each.dependencies
    told.file_descriptor_response.file_descriptor_proto.extend(each.serialized_pb for each in found.values())


def _error(told: Any, code: int, words: str) -> None:
    told.error_response.error_code = code
    told.error_response.error_message = words


def _refused(package: str, call: Call, error: TidemillError) -> bytes:
    told = schemas.message(f"{package}.ServerReflectionResponse")()
    _error(told, INVALID, error.message)
    return bytes(told.SerializeToString())
