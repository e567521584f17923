"""Every answer tells the id of its request, and every line of the log about it does too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving import Server, eventually
from tidemill.core.schemas import message

ROUTES = [
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/console"), ("GET", "/nowhere"),
    ("DELETE", "/healthz"), ("GET", "/v1/models/half"), ("GET", "/v1/models/half/metadata"), ("GET", "/v1/models"),
    ("GET", "/v1/models/nobody"), ("POST", "/v1/models/half:predict"), ("POST", "/v1/models/nobody:predict"),
    ("POST", "/v1/models/half:classify"), ("POST", "/v1/models/half"), ("GET", "/v1/models/half:predict"),
    ("GET", "/v2"), ("GET", "/v2/health/live"), ("GET", "/v2/health/ready"), ("GET", "/v2/models/half"),
    ("GET", "/v2/models/half/ready"), ("POST", "/v2/models/half/infer"), ("POST", "/v2/models/nobody/infer"),
    ("GET", "/admin/v1/overview"), ("GET", "/admin/v1/keys"), ("POST", "/admin/v1/keys"), 
    ("DELETE", "/admin/v1/keys/x"),
]  # fmt: skip
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"


@pytest.fixture(scope="module")
def talkative(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("half", "poison", "--no-auth", "--no-charge", "--access-log")
    with Server(repository, tmp_path_factory.mktemp("data"), *flags) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=" ".join)
def test_every_route_gives_the_callers_id_back_and_makes_one_where_there_is_none(
    server: Server, method: str, path: str
) -> None:
    named = server.client.request(method, path, headers={"x-request-id": "mine-7"})
    assert named.headers.get_list("x-request-id") == ["mine-7"]
    made = [server.client.request(method, path).headers.get_list("x-request-id") for _ in range(2)]
    assert [len(each) for each in made] == [1, 1]
    assert made[0] != made[1]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=" ".join)
@pytest.mark.parametrize("odd", ["x" * 129, "é"], ids=["long", "no ASCII"])
def test_an_id_that_cannot_be_logged_is_never_given_back(server: Server, method: str, path: str, odd: str) -> None:
    answer = server.client.request(method, path, headers=[(b"x-request-id", odd.encode())])
    (given,) = answer.headers.get_list("x-request-id")
    assert given != odd
    assert given.isalnum()


def asked(model: str) -> bytes:
    inputs = [{"name": "input", "datatype": "FP32", "shape": [2]}]
    raw = [np.array([1, 2], np.float32).tobytes()]
    request = message("inference.ModelInferRequest")(model_name=model, inputs=inputs, raw_input_contents=raw)
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(("method", "body"), [(INFER, asked("half")), (INFER, asked("nobody")), (LIVE, b"")], ids=len)
@pytest.mark.parametrize("given", ["", "mine-8"])
def test_grpc_tells_it_in_the_trailing_metadata(server: Server, method: str, body: bytes, given: str) -> None:
    metadata = (("x-request-id", given),) if given else ()
    with grpc.insecure_channel(server.told["grpc_address"]) as channel:
        call: Any
        try:
            _, call = channel.unary_unary(method).with_call(body, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            call = error
        told = [value for key, value in call.trailing_metadata() if key == "x-request-id"]
    assert len(told) == 1
    assert told == [given] if given else told[0].isalnum()


def test_the_lines_of_one_request_carry_its_id(talkative: Server) -> None:
    talkative.predict("half", {"instances": [1.0]}, **{"x-request-id": "line-1"})
    talkative.predict("nobody", {"instances": [1.0]}, **{"x-request-id": "line-2"})
    eventually(lambda: "line-2" in talkative.stderr(), "it is logged")
    lines = [json.loads(line) for line in talkative.stderr().splitlines()]
    assert [line["status"] for line in lines if line.get("request_id") == "line-1"] == [200]
    assert [line["status"] for line in lines if line.get("request_id") == "line-2"] == [404]
    assert all("request_id" in line for line in lines if line["logger"] == "tidemill.access")
