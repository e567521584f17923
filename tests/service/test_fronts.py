"""Fronts before the owner: the same answers, the same limits and the same sums, whatever comes and whoever dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest

from serving import Server, Wire, eventually, over, post, tidemill
from tidemill.core.schemas import message

PREDICT = "/v1/models/half:predict"
BODY = b'{"instances":[4.0]}'
SLOW = "/v1/models/slow:predict"
SLOW_BODY = b'{"inputs": 1500}'
COUNTS = (0, 1, 2)
RESTARTED_WITHIN_S = 30.0

ModelInferRequest = message("inference.ModelInferRequest")
PredictRequest = message("tensorflow.serving.PredictRequest")
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def servers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Server]]:
    """One without fronts, one with one, one with two; no keys, nothing booked."""
    with ExitStack() as stack:
        yield {
            count: stack.enter_context(
                Server(repository, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge", "--fronts", str(count))
            )
            for count in COUNTS
        }


@pytest.fixture
def booking(repository: Path, tmp_path: Path) -> Iterator[Server]:
    """Two fronts, four places for each model, charges and no keys."""
    with Server(repository, tmp_path, "half", "slow", "--no-auth", "--fronts", "2", "--queue-max", "4") as running:
        yield running


def fronts_of(server: Server) -> list[psutil.Process]:
    """The processes that listen for HTTP."""
    return [each for each in psutil.Process(server.process.pid).children() if "--listen" in " ".join(each.cmdline())]


def wires_to_each(server: Server, count: int) -> list[Wire]:
    """Connections, of which every front has some."""
    wires: list[Wire] = []
    for _ in range(64):
        wires += [server.connect() for _ in range(count)]
        for wire in wires[-count:]:
            assert wire.ask(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").status == 200
        mine = {wire.socket.getsockname()[1] for wire in wires}  # and not the client's, which metrics count too
        if all(mine & _far_ports(front) for front in fronts_of(server)):
            return wires
    raise AssertionError(f"one front has all {len(wires)} connections")


def _far_ports(front: psutil.Process) -> set[int]:
    return {each.raddr.port for each in front.net_connections("tcp") if each.raddr}


def close(wires: list[Wire]) -> None:
    for wire in wires:
        wire.socket.close()


# -- the same answers --------------------------------------------------------------------------------------------------


def _text(body: Any) -> dict[str, Any]:
    return {"content": json.dumps(body).encode()}


def _binary() -> dict[str, Any]:
    data = np.arange(4, dtype=np.float32).tobytes()
    head = {
        "inputs": [{"name": "input", "shape": [4], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True},
    }
    raw = json.dumps(head).encode()
    return {"content": raw + data, "headers": {"inference-header-content-length": str(len(raw))}}


def _strings(values: list[str]) -> dict[str, Any]:
    return _text({"inputs": [{"name": "x", "shape": [len(values)], "datatype": "BYTES", "data": values}]})


REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "row form": ("POST", PREDICT, _text({"instances": [1.0, 2.5, -3]})),
    "column form": ("POST", PREDICT, _text({"inputs": [1.0, 2.5]})),
    "by version": ("POST", "/v1/models/half/versions/1:predict", _text({"instances": [1.0]})),
    "two inputs": (
        "POST",
        "/v1/models/two:predict",
        _text({"inputs": {"a": [[1, 2, 3]], "b": [[4, 5, 6]], "count": [[7]]}}),
    ),
    "no batch": ("POST", "/v1/models/fixed:predict", _text({"inputs": [[1, 2, 3], [4, 5, 6]]})),
    "rows of what has none": ("POST", SLOW, _text({"instances": [20]})),
    "strings": ("POST", "/v2/models/text/infer", _strings(["", "é", "a" * 50_000])),
    "V2": (
        "POST",
        "/v2/models/half/infer",
        _text({"id": "7", "inputs": [{"name": "input", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}),
    ),
    "V2 binary": ("POST", "/v2/models/half/infer", _binary()),
    "no rows": (
        "POST",
        "/v2/models/half/infer",
        _text({"inputs": [{"name": "input", "shape": [0], "datatype": "FP32", "data": []}]}),
    ),
    "unknown model": ("POST", "/v1/models/nobody:predict", _text({"instances": [1]})),
    "unknown version": ("POST", "/v1/models/half/versions/9:predict", _text({"instances": [1]})),
    "unknown label": ("POST", "/v1/models/half/labels/none:predict", _text({"instances": [1]})),
    "no JSON": ("POST", PREDICT, {"content": b"{"}),
    "wrong kind": ("POST", PREDICT, _text({"instances": ["a"]})),
    "missing input": ("POST", "/v1/models/two:predict", _text({"inputs": {"a": [[1, 2, 3]]}})),
    "refused by the engine": ("POST", "/v1/models/poison:predict", _text({"instances": [99]})),
    "deadline": ("POST", SLOW, _text({"inputs": 5000}) | {"headers": {"x-request-timeout-ms": "1"}}),
    "own id": ("POST", PREDICT, _text({"instances": [1]}) | {"headers": {"x-request-id": "mine"}}),
    "compressed": ("POST", PREDICT, _text({"instances": [1]}) | {"headers": {"content-encoding": "gzip"}}),
    "GET of a hot route": ("GET", PREDICT, {}),
    "metadata": ("GET", "/v1/models/half/metadata", {}),
    "status": ("GET", "/v1/models/half/versions/1", {}),
    "V2 metadata": ("GET", "/v2/models/two", {}),
    "V2 ready": ("GET", "/v2/models/half/ready", {}),
    "V2 server": ("GET", "/v2", {}),
    "live": ("GET", "/healthz", {}),
    "ready": ("GET", "/readyz", {}),
    "nothing there": ("GET", "/nothing?a=b", {}),
    "not allowed": ("DELETE", "/readyz", {}),
    "body to where none belongs": ("POST", "/v1/models/half", {"content": b"x" * 100_000}),
    "admin, unknown key": ("DELETE", "/admin/v1/keys/nobody", {}),
    "admin, bad body": ("POST", "/admin/v1/keys", {"content": b"{"}),
    "admin, large body": ("POST", "/admin/v1/keys", {"content": b" " * 100_000}),
    "admin, foreign page": ("GET", "/admin/v1/keys", {"headers": {"origin": "http://elsewhere"}}),
}
KEPT = ("content-type", "x-request-id", "allow", "www-authenticate", "inference-header-content-length", "connection")


@pytest.mark.parametrize("count", COUNTS[1:])
@pytest.mark.parametrize("name", REQUESTS)
def test_answer_over_fronts_is_the_answer_without(servers: dict[int, Server], name: str, count: int) -> None:
    method, path, content = REQUESTS[name]
    plain, fronted = (servers[each].client.request(method, path, **content) for each in (0, count))
    assert fronted.status_code == plain.status_code
    kept = [each for each in KEPT if each != "x-request-id" or name == "own id"]
    assert [fronted.headers.get(each) for each in kept] == [plain.headers.get(each) for each in kept]
    if name not in {"deadline", "status"}:  # they tell times
        port, plain_port = (str(servers[each].address[1]).encode() for each in (count, 0))
        assert fronted.content.replace(port, plain_port) == plain.content


def test_large_tensors_pass(servers: dict[int, Server]) -> None:
    """Larger than any socket's buffer, both ways."""
    values = np.arange(3_000_000, dtype=np.float32)
    size = {"binary_data_size": values.nbytes}
    head = {
        "inputs": [{"name": "x", "shape": [1, values.size], "datatype": "FP32", "parameters": size}],
        "parameters": {"binary_data_output": True},
    }
    raw = json.dumps(head).encode()
    answer = servers[2].infer("echo-fp32", raw + values.tobytes(), **{"inference-header-content-length": str(len(raw))})
    assert answer.status_code == 200, answer.text
    assert answer.content[-values.nbytes :] == values.tobytes()


def _infer_request(model: str = "half", **more: Any) -> bytes:
    values = np.array([1, 2, 3], np.float32)
    tensor = {"name": "input", "datatype": "FP32", "shape": [3]}
    made: bytes = ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[values.tobytes()], **more
    ).SerializeToString()
    return made


def _predict_request(name: str = "half") -> bytes:
    request = PredictRequest(model_spec={"name": name})
    tensor = request.inputs["input"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=2)
    tensor.float_val.extend([1.0, 5.0])
    made: bytes = request.SerializeToString()
    return made


CALLS: dict[str, tuple[str, bytes]] = {
    "infer": (INFER_METHOD, _infer_request(id="9")),
    "predict": ("/tensorflow.serving.PredictionService/Predict", _predict_request()),
    "unknown model": (INFER_METHOD, _infer_request("nobody")),
    "no message": (INFER_METHOD, b"\xff\xff"),
    "metadata": (
        "/inference.GRPCInferenceService/ModelMetadata",
        message("inference.ModelMetadataRequest")(name="two").SerializeToString(),
    ),
    "metadata of nobody": (
        "/inference.GRPCInferenceService/ModelMetadata",
        message("inference.ModelMetadataRequest")(name="nobody").SerializeToString(),
    ),
    "server ready": ("/inference.GRPCInferenceService/ServerReady", b""),
    "status": (
        "/tensorflow.serving.ModelService/GetModelStatus",
        message("tensorflow.serving.GetModelStatusRequest")(model_spec={"name": "half"}).SerializeToString(),
    ),
    "unknown method": ("/inference.GRPCInferenceService/Nothing", b""),
}
METADATA = (("x-request-id", "mine"),)


def _called(address: str, name: str) -> tuple[Any, ...]:
    method, body = CALLS[name]
    with grpc.insecure_channel(address) as channel:
        try:
            reply, call = channel.unary_unary(method).with_call(body, metadata=METADATA, timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details(), sorted(error.trailing_metadata() or ())
        return reply, sorted(call.trailing_metadata() or ())


@pytest.mark.parametrize("count", COUNTS[1:])
@pytest.mark.parametrize("name", CALLS)
def test_grpc_over_fronts_answers_as_without(servers: dict[int, Server], name: str, count: int) -> None:
    plain, fronted = (_called(servers[each].told["grpc_address"], name) for each in (0, count))
    assert fronted == plain


def test_one_port_answers_rest_and_grpc_with_fronts_too(repository: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Server(repository, tmp_path, "half", "--no-auth", "--no-charge", "--fronts", "1", "--port", str(port)):
        answer = httpx.post(f"http://127.0.0.1:{port}{PREDICT}", content=BODY)
        assert answer.json() == {"predictions": [2.0]}
        reply = message("inference.ModelInferResponse").FromString(_called(f"127.0.0.1:{port}", "infer")[0])
        assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [0.5, 1.0, 1.5]


# -- keys, limits, sums ------------------------------------------------------------------------------------------------


def test_revoked_key_is_refused_at_every_front(repository: Path, tmp_path: Path) -> None:
    def made(*more: str) -> dict[str, Any]:
        done = tidemill("keys", "create", "--tenant", "acme", "--data-dir", tmp_path, "--json", *more)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    admin, key = made("--admin"), made()
    with Server(repository, tmp_path, "half", "--fronts", "2") as server:
        wires = wires_to_each(server, 4)
        ask = post(PREDICT, BODY, f"authorization: Bearer {key['key']}")
        assert [wire.ask(ask).status for wire in wires] == [200] * len(wires)
        fresh = made()  # by another process, a moment ago
        ask_fresh = post(PREDICT, BODY, f"authorization: Bearer {fresh['key']}")
        assert [wire.ask(ask_fresh).status for wire in wires] == [200] * len(wires)
        gone = server.client.delete(f"/admin/v1/keys/{key['id']}", headers={"authorization": f"Bearer {admin['key']}"})
        assert gone.status_code == 200
        eventually(lambda: all(wire.ask(ask).status == 401 for wire in wires), "refused at all", 2.0)
        assert wires[0].ask(ask).code == "key.revoked"
        close(wires)


def test_limit_of_a_model_is_one_for_all_fronts(booking: Server) -> None:
    """Four places, two fronts, a dozen that ask at once: four are held, not eight."""
    wires = wires_to_each(booking, 6)
    for wire in wires:
        wire.send(post(SLOW, SLOW_BODY))
    eventually(lambda: booking.in_flight == 4, "four are held")
    answers = [wire.answer() for wire in wires]
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == 4
    assert statuses.count(503) == len(wires) - 4
    assert {answer.code for answer in answers if answer.status == 503} == {"admission.overloaded"}
    close(wires)
    assert booking.in_flight == 0


def test_sums_are_those_of_all_fronts(booking: Server) -> None:
    wires = wires_to_each(booking, 8)
    before = booking.metrics()
    for wire in wires:
        assert wire.ask(post(PREDICT, BODY)).status == 200
        assert wire.ask(post(PREDICT, b'{"instances":["a"]}')).status == 400
        assert wire.ask(post("/v1/models/nobody:predict", BODY)).status == 404
    count = len(wires)

    def grown(name: str) -> float:
        return booking.metrics().get(name, 0) - before.get(name, 0)

    eventually(lambda: grown('tidemill_failures_total{code="model.unknown",model=""}') == count, "strangers", 3.0)
    assert grown('tidemill_failures_total{code="input.datatype",model="half"}') == count
    assert grown('tidemill_requests_total{model="half",version="1"}') == count
    assert grown("tidemill_charges_total") == count
    told = booking.metrics()
    assert told["tidemill_connections"] == count + 1
    close(wires)


# -- those who go away -------------------------------------------------------------------------------------------------


def test_client_that_vanishes_is_cancelled_at_the_owner(booking: Server) -> None:
    wires = [booking.connect() for _ in range(4)]
    for wire in wires:
        wire.send(post(SLOW, b'{"inputs": 100000}'))
    eventually(lambda: booking.in_flight == 4, "four are held")
    for wire in wires:
        wire.reset()
    eventually(lambda: booking.in_flight == 0, "their places are free")
    name = 'tidemill_failures_total{code="request.cancelled",model=""}'
    eventually(lambda: booking.metrics().get(name) == 4, "they are counted", 3.0)


def test_killed_front_takes_its_own_requests_alone_and_is_back(booking: Server) -> None:
    """One front is killed while both wait for slow answers: the other's are answered, the owner frees the places."""
    wires = wires_to_each(booking, 4)
    victim = fronts_of(booking)[0]
    mine = _far_ports(victim)
    doomed = [wire for wire in wires if wire.socket.getsockname()[1] in mine]
    safe = [wire for wire in wires if wire.socket.getsockname()[1] not in mine]
    assert doomed
    assert safe
    doomed[0].send(post(SLOW, b'{"inputs": 4000}'))
    safe[0].send(post(SLOW, SLOW_BODY))
    eventually(lambda: booking.in_flight == 2, "both are held")
    victim.send_signal(signal.SIGKILL)
    assert all(wire.closed for wire in doomed)
    assert safe[0].answer().status == 200
    assert all(wire.ask(post(PREDICT, BODY)).status == 200 for wire in safe)

    def told(name: str) -> float:
        with httpx.Client(base_url=booking.url) as client:
            found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    eventually(lambda: told("tidemill_front_up") == 3, "it is back", RESTARTED_WITHIN_S)
    assert told("tidemill_front_restarts_total") == 1
    assert told("tidemill_in_flight") == 0
    assert told('tidemill_failures_total{code="request.cancelled"') >= 1
    assert "is started again" in booking.stderr()
    close(wires)
    booking.client.close()
    booking.client = httpx.Client(base_url=booking.url, timeout=30)
    close(wires_to_each(booking, 4))


def test_front_that_has_stopped_is_replaced(repository: Path, tmp_path: Path) -> None:
    with Server(
        repository, tmp_path, "half", "--no-auth", "--no-charge", "--fronts", "1", "--front-silent-ms-max", "1000"
    ) as server:
        front = fronts_of(server)[0]
        front.send_signal(signal.SIGSTOP)
        eventually(lambda: over(front), "killed", 20.0)
        eventually(lambda: _answers(server), "another answers", RESTARTED_WITHIN_S)
        assert "it is killed" in server.stderr()


def _answers(server: Server) -> bool:
    try:
        return httpx.post(server.url + PREDICT, content=BODY, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_version_that_is_unloaded_ends_as_soon_as_nobody_asks_it(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "half", "--no-auth", "--no-charge", "--fronts", "1") as server:
        assert httpx.post(server.url + PREDICT, content=BODY).status_code == 200
        # Who waits for more than this waits for the end of the drain.
        assert httpx.post(f"{server.url}/v2/repository/models/half/unload", timeout=15).status_code == 200
        told = httpx.post(f"{server.url}/v2/repository/index").json()
        assert [each["state"] for each in told if each["name"] == "half"] == ["UNAVAILABLE"]
        eventually(lambda: httpx.post(server.url + PREDICT, content=BODY).status_code == 404, "it is unknown", 5.0)


def test_owner_that_is_killed_leaves_no_front(booking: Server) -> None:
    fronts = psutil.Process(booking.process.pid).children()
    assert len(fronts) == 3
    wire = booking.connect()
    wire.send(post(SLOW, b'{"inputs": 100000}'))
    eventually(lambda: booking.in_flight == 1, "one is held")
    booking.process.send_signal(signal.SIGKILL)
    answer = wire.answer()
    assert (answer.status, answer.code) == (503, "link.lost")
    _, alive = psutil.wait_procs(fronts, timeout=20)
    assert alive == []
    wire.socket.close()


def test_drain_answers_what_runs_and_refuses_what_comes(booking: Server) -> None:
    wires = wires_to_each(booking, 4)
    fronts = psutil.Process(booking.process.pid).children()
    for wire in wires[:2]:
        wire.send(post(SLOW, b'{"inputs": 3000}'))
    eventually(lambda: booking.in_flight == 2, "two are held")
    booking.process.terminate()
    assert [wire.answer().status for wire in wires[:2]] == [200, 200]
    assert booking.ended() == 0
    close(wires)
    assert not any(each.is_running() for each in fronts)
    assert "Traceback" not in booking.stderr()


def test_front_that_is_told_to_end_alone_is_replaced(booking: Server) -> None:
    front = fronts_of(booking)[0]
    os.kill(front.pid, signal.SIGTERM)
    psutil.wait_procs([front], timeout=20)
    up: Callable[[], bool] = lambda: len(fronts_of(booking)) == 2  # noqa: E731
    eventually(up, "two again", RESTARTED_WITHIN_S)


def test_port_that_is_taken_is_told(repository: Path, tmp_path: Path, booking: Server) -> None:
    port = booking.address[1]
    done = tidemill(
        "serve", "half", "--models", repository, "--data-dir", tmp_path / "other", "--no-auth", "--no-console",
        "--grpc-port", "0", "--http-port", str(port), "--fronts", "1",
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{port} cannot be listened on" in done.stderr
