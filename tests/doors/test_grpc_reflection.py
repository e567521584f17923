"""Reflection over a real connection: a client that knows none of our schemas learns them all from the server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from doors.over_grpc import BEARER, LIMIT_S, serving
from fakes import FakeService
from tidemill.core import schemas
from tidemill.doors.kserve.grpc_control import NOT_OFFERED

MISSING = "Method not found!"
"""gRPC's own words."""
PACKAGES = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]


async def reflected(channel: grpc.aio.Channel, package: str, *asked: dict[str, Any]) -> list[Any]:
    """The answers to `asked`, all in one stream."""
    request = schemas.message(f"{package}.ServerReflectionRequest")
    response = schemas.message(f"{package}.ServerReflectionResponse")
    stream = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")(timeout=LIMIT_S)
    told = []
    for each in asked:
        await stream.write(request(**each).SerializeToString())
        told.append(response.FromString(await stream.read()))
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    return told


def pool_of(*told: Any) -> DescriptorPool:
    files = {}
    for each in told:
        for raw in each.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            files[file.name] = file
    pool = DescriptorPool()
    while files:  # those first whose imports are there
        for name, file in list(files.items()):
            if not set(file.dependency) & files.keys():
                pool.AddSerializedFile(files.pop(name).SerializeToString())
    return pool


@pytest.mark.parametrize("package", PACKAGES)
async def test_every_service_is_listed_and_described_with_the_methods_that_it_has(package: str) -> None:
    async with serving(FakeService()) as channel:
        (listed,) = await reflected(channel, package, {"list_services": "*"})
        names = [each.name for each in listed.list_services_response.service]
        told = await reflected(channel, package, *({"file_containing_symbol": name} for name in names))
        pool = pool_of(*told)
        for name in names:
            for method in pool.FindServiceByName(name).methods:
                streams = method.client_streaming or method.server_streaming
                assert await exists(channel, name, method.name, streams), method.full_name
            assert not await exists(channel, name, "Nothing", False)
    assert len(names) >= 6


async def exists(channel: grpc.aio.Channel, service: str, method: str, streams: bool) -> bool:
    """Whether there is such a method, whatever it says to no bytes at all and no key."""
    if streams:
        stream = channel.stream_stream(f"/{service}/{method}")(timeout=LIMIT_S)
        with suppress(grpc.aio.AioRpcError):  # it may be refused before it has spoken
            await stream.write(b"")
            await stream.done_writing()
        if service == "grpc.health.v1.Health":  # a watch has no end
            return await stream.read() is not grpc.aio.EOF
        with suppress(grpc.aio.AioRpcError):
            while await stream.read() is not grpc.aio.EOF:
                pass  # the end comes behind what is left unread
        return await stream.details() != MISSING
    try:
        await channel.unary_unary(f"/{service}/{method}")(b"", timeout=LIMIT_S)
    except grpc.aio.AioRpcError as error:
        return error.details() != MISSING
    return True


async def test_a_client_that_learns_everything_by_reflection_can_ask_a_model() -> None:
    package = PACKAGES[0]
    async with serving(FakeService()) as channel:
        (told,) = await reflected(channel, package, {"file_containing_symbol": "inference.GRPCInferenceService"})
        method = pool_of(told).FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
        asks, gives = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        asked = asks(model_name="half", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 1]}])
        asked.raw_input_contents.append(np.float32(3).tobytes())
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = gives.FromString(await call(asked.SerializeToString(), metadata=BEARER, timeout=LIMIT_S))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1.5]


async def test_a_file_comes_with_all_that_it_imports_and_first() -> None:
    async with serving(FakeService()) as channel:
        told = await reflected(
            channel,
            PACKAGES[0],
            {"file_by_filename": "inference.proto"},
            {"file_containing_symbol": "inference.ModelInferRequest.InferInputTensor"},
            {"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"},
        )
    for each in told:
        raws = each.file_descriptor_response.file_descriptor_proto
        names = [descriptor_pb2.FileDescriptorProto.FromString(raw).name for raw in raws]
        assert names == ["inference.proto", "model_config.proto"]


async def test_what_is_not_there_is_told_and_the_stream_goes_on() -> None:
    asked: list[dict[str, Any]] = [
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "inference.Nothing"},
        {"file_containing_symbol": ""},
        {"file_containing_extension": {"containing_type": "inference.ModelConfig", "extension_number": 7}},
        {"all_extension_numbers_of_type": "inference.Nothing"},
        {},
        {"all_extension_numbers_of_type": "inference.ModelConfig", "host": "here"},
    ]
    async with serving(FakeService()) as channel:
        told = await reflected(channel, PACKAGES[1], *asked)
    codes = [each.error_response.error_code for each in told]
    assert codes == [5, 5, 5, 5, 5, 12, 0]
    assert "inference.Nothing" in told[1].error_response.error_message
    assert told[-1].all_extension_numbers_response.base_type_name == "inference.ModelConfig"
    assert (told[-1].valid_host, told[-1].original_request.host) == ("here", "here")


async def test_bytes_that_are_no_request_are_told_in_the_stream() -> None:
    async with serving(FakeService()) as channel:
        stream = channel.stream_stream(f"/{PACKAGES[0]}.ServerReflection/ServerReflectionInfo")(timeout=LIMIT_S)
        await stream.write(b"\xff\xff")
        told = schemas.message(f"{PACKAGES[0]}.ServerReflectionResponse").FromString(await stream.read())
    assert told.error_response.error_code == 3


def test_what_is_refused_is_in_no_schema() -> None:
    service = schemas.pool().FindServiceByName("inference.GRPCInferenceService")
    assert not NOT_OFFERED.keys() & set(service.methods_by_name)
