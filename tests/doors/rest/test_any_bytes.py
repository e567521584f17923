"""Whatever is sent, the answer is the caller's fault or an answer, never ours."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import Server, quiet_after
from tidemill.doors.relay import speaks_http2

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MODELS = st.sampled_from(
    ["half", "two", "fixed", "whole", "text", "poison", "echo-bool", "echo-fp16", "echo-uint8", "echo-bytes"]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["FP32", "INT64", "BYTES", "x", "input", "serving_default"])
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["x", "input", "b64", "a", "b", "count"]) | st.text(max_size=3), inner, max_size=3
        )
    ),
    max_leaves=12,
)
sides = st.integers(-2, 4) | st.sampled_from([2**31, 2**62, 2**63, 2**64]) | scalars
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "input", "a", "b", "count"]) | scalars,
        "datatype": st.sampled_from(["FP32", "INT64", "BOOL", "UINT8", "FP16", "BYTES"]) | scalars,
        "shape": st.lists(sides, max_size=4) | values,
        "data": values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": sides}) | values,
    },
)
outputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["y", "output", "sum"]) | scalars,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data": scalars}) | values,
    },
)
infers = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(tensors, max_size=3) | values,
        "outputs": st.lists(outputs, max_size=2) | values,
        "parameters": st.fixed_dictionaries({}, optional={"timeout": sides, "binary_data_output": scalars}) | values,
        "id": scalars,
    },
)
predicts = st.fixed_dictionaries(
    {}, optional={"instances": values, "inputs": values, "signature_name": st.just("serving_default") | scalars}
)


@pytest.fixture(scope="module", autouse=True)
def _quiet(server: Server) -> Any:
    with quiet_after(server):
        yield


def _told(answer: httpx.Response) -> None:
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert answer.json().keys() == {"error", "code"}


@QUICK
@given(model=MODELS, body=st.binary(max_size=300), length=st.none() | st.integers(0, 320))
def test_random_bytes(server: Server, model: str, body: bytes, length: int | None) -> None:
    _told(server.predict(model, body))
    _told(server.infer(model, body, **({} if length is None else {"inference-header-content-length": str(length)})))


@QUICK
@given(model=MODELS, body=predicts)
def test_random_predict_requests(server: Server, model: str, body: Any) -> None:
    _told(server.predict(model, json.dumps(body).encode("utf-8", "surrogatepass")))


@QUICK
@given(model=MODELS, body=infers, tail=st.binary(max_size=40))
def test_random_infer_requests(server: Server, model: str, body: Any, tail: bytes) -> None:
    head = json.dumps(body).encode("utf-8", "surrogatepass")
    _told(server.infer(model, head))
    _told(server.infer(model, head + tail, **{"inference-header-content-length": str(len(head))}))


@QUICK
@given(
    path=st.text(st.characters(codec="ascii", exclude_characters="\r\n \0#?"), max_size=40),
    method=st.sampled_from(["GET", "POST"]),
)
def test_random_paths(server: Server, path: str, method: str) -> None:
    for front in ("/", "/v1/models/", "/v2/models/half/", "/v1/models/half/versions/", "/admin/v1/"):
        with server.connect() as wire:
            answer = wire.ask(f"{method} {front}{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
            assert answer.status < 500, answer


@QUICK
@given(data=st.binary(min_size=1, max_size=200).filter(lambda data: data.strip(b"\r\n") and not speaks_http2(data)))
def test_random_bytes_instead_of_http(server: Server, data: bytes) -> None:
    """Empty lines before a request are no request yet, HTTP/2 is gRPC's; all else is answered."""
    with server.connect() as wire:
        wire.send(data + b"\r\n\r\n" * 2)
        assert wire.answer().status in (400, 404, 405)
