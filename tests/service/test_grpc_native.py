"""gRPC on pygrpc-native, where it is installed: the same answers as on grpc.aio, from the owner and from a front."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import needs
from serving import Server, eventually
from tidemill.core.errors import InvalidSetting, MissingPart
from tidemill.core.schemas import message
from tidemill.core.settings import Settings
from tidemill.doors import grpc_server

SERVICE = "/inference.GRPCInferenceService/"
ModelInferRequest = message("inference.ModelInferRequest")
HALF = ModelInferRequest(
    model_name="half",
    inputs=[{"name": "input", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [4.0]}}],
)
CALLS: dict[str, tuple[str, Any]] = {
    "infer": (SERVICE + "ModelInfer", HALF),
    "unknown model": (SERVICE + "ModelInfer", ModelInferRequest(model_name="nobody")),
    "metadata": (SERVICE + "ModelMetadata", message("inference.ModelMetadataRequest")(name="half")),
    "index": (SERVICE + "RepositoryIndex", message("inference.RepositoryIndexRequest")()),
    "not offered": (SERVICE + "TraceSetting", message("inference.RepositoryIndexRequest")()),
    "health": ("/grpc.health.v1.Health/Check", message("grpc.health.v1.HealthCheckRequest")()),
    "unknown method": (SERVICE + "Nothing", message("inference.RepositoryIndexRequest")()),
}


@pytest.fixture(scope="module")
def plain(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(repository, tmp_path_factory.mktemp("data"), "half", "slow", "--no-auth", "--no-charge") as running:
        yield running


@pytest.fixture(scope="module", params=["0", "1"], ids=["in the owner", "in a front"])
def native(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    needs.pygrpc_native()
    flags = ("--no-auth", "--no-charge", "--grpc-engine", "native", "--fronts", request.param)
    with Server(repository, tmp_path_factory.mktemp("data"), "half", "slow", *flags) as running:
        yield running


def called(server: Server, name: str) -> tuple[Any, ...]:
    method, body = CALLS[name]
    with grpc.insecure_channel(server.told["grpc_address"]) as channel:
        asked = channel.unary_unary(method)
        try:
            reply, call = asked.with_call(body.SerializeToString(), metadata=(("x-request-id", "mine"),), timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details(), sorted(error.trailing_metadata() or ())
        return reply, sorted(call.trailing_metadata() or ())


@pytest.mark.parametrize("name", CALLS)
def test_native_answers_as_aio_does(plain: Server, native: Server, name: str) -> None:
    assert called(native, name) == called(plain, name)


def test_streams_are_answered_too(native: Server) -> None:
    with grpc.insecure_channel(native.told["grpc_address"]) as channel:
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([HALF.SerializeToString()] * 3), timeout=30)
        replies = [message("inference.ModelStreamInferResponse").FromString(each) for each in stream]
    assert [each.infer_response.outputs[0].shape[:] for each in replies] == [[1]] * 3


def test_call_that_is_cancelled_gives_its_place_back(native: Server) -> None:
    slow = ModelInferRequest(
        model_name="slow",
        inputs=[{"name": "steps", "datatype": "INT64", "shape": [], "contents": {"int64_contents": [20_000]}}],
    )
    with grpc.insecure_channel(native.told["grpc_address"]) as channel:
        asked = channel.unary_unary(SERVICE + "ModelInfer").future(slow.SerializeToString(), timeout=30)
        eventually(lambda: native.in_flight == 1, "it is held")
        asked.cancel()
        eventually(lambda: native.in_flight == 0, "its place is free")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "tidemill.doors.grpc_native", raising=False)
    with pytest.raises(MissingPart, match=r"pip install 'tidemill\[grpc-native\]'"):
        grpc_server.native_engine(Settings(grpc_engine="native"), tls=False)


def test_native_with_tls_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="native speaks no TLS"):
        grpc_server.native_engine(Settings(grpc_engine="native"), tls=True)
