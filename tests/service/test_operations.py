"""What an operator sees: alive, ready, draining, and a log that tells who was refused but no secret."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from serving import WAIT_S_MAX, Server, eventually, headers_of, post
from small_models import echo, lay_out, save, slow
from tidemill.core import schemas

SLOW = "/v1/models/slow:predict"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_healthz_and_readyz_of_a_service_that_is_well(server: Server) -> None:
    assert server.client.get("/healthz").json() == {"status": "alive"}
    answer = server.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reasons": []})


def test_console_that_does_not_run_is_told(server: Server) -> None:
    answer = server.client.get("/console")
    assert (answer.status_code, answer.json()["code"]) == (501, "install.missing")
    assert "--no-console" in answer.json()["error"]


def test_metrics_are_prometheus_text_and_count(server: Server) -> None:
    requests, failures = (
        'tidemill_requests_total{model="half",version="1"}',
        'tidemill_failures_total{code="input.datatype",model="half"}',
    )
    before = server.metrics()
    for _ in range(3):
        server.predict("half", {"instances": [1.0, 2.0]})
    server.predict("half", {"instances": ["x"]})
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    after = server.metrics()
    assert after[requests] == before[requests] + 3
    assert after[failures] == before.get(failures, 0) + 1
    assert after['tidemill_model_ready{model="half",version="1"}'] == 1
    assert after["tidemill_in_flight"] == 0
    assert after["tidemill_process_resident_bytes"] > 10_000_000


@pytest.mark.slow
def test_while_loading_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    """The second model takes a second to warm up; the first answers meanwhile, and the third is not unknown."""
    echo(tmp_path / "models", "a-quick", "FP32")
    save(tmp_path / "models", "b-slow", slow(steps=4000))
    echo(tmp_path / "models", "c-later", "FP32")
    port = free_port()
    server = Server(tmp_path / "models", tmp_path / "data", "--no-auth", "--http-port", str(port))
    server.spawn()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:

            def state(model: str) -> str:
                try:
                    told = client.get(f"/v1/models/{model}").json()
                except httpx.ConnectError:
                    return ""
                return str(told["model_version_status"][0]["state"]) if "model_version_status" in told else ""

            eventually(lambda: state("a-quick") == "AVAILABLE", "the first is there")
            assert state("b-slow") == "LOADING"
            assert client.get("/healthz").status_code == 200
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert answer.json()["reasons"]
            assert client.get("/v2/health/ready").status_code == 503
            assert client.post("/v1/models/a-quick:predict", json={"instances": [[1]]}).json() == {
                "predictions": [[1.0]]
            }
            refused = client.post("/v1/models/b-slow:predict", json={"inputs": 1})
            assert (refused.status_code, refused.json()["code"]) == (503, "model.not_ready")
            assert client.get("/v2/models/b-slow/ready").status_code == 503
            later = client.post("/v1/models/c-later:predict", json={"inputs": [[1]]})
            assert (later.status_code, later.json()["code"]) == (503, "model.not_ready")
            server.process.send_signal(signal.SIGTERM)
            assert server.ended() == 0
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.ended()


@pytest.fixture(scope="module")
def lame(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One good model, several that are refused."""
    models = tmp_path_factory.mktemp("lame")
    echo(models, "good", "FP32")
    for name, content in {"garbage": b"no model at all", "empty": b"", "cut": _onnx(models)[:-20]}.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.onnx").write_bytes(content)
    (models / "hollow" / "1").mkdir(parents=True)
    (models / "badtoml" / "1").mkdir(parents=True)
    (models / "badtoml" / "1" / "tidemill.toml").write_text("engine = [broken")
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running


def _onnx(folder: Path) -> bytes:
    path = save(folder / "unused", "slow", slow()) / "model.onnx"
    content = path.read_bytes()
    path.unlink()
    return content


REFUSED = ["garbage", "empty", "cut", "hollow", "badtoml"]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_model_is_told_with_its_reason_everywhere(lame: Server, name: str) -> None:
    told = lame.client.get("/readyz")
    assert told.status_code == 503
    assert any(f"model {name} version 1 is FAILED" in reason for reason in told.json()["reasons"])
    answer = lame.predict(name, {"instances": [1]})
    assert (answer.status_code, answer.json()["code"]) == (503, "model.not_ready")
    assert "FAILED" in answer.json()["error"]
    status = lame.client.get(f"/v1/models/{name}").json()["model_version_status"][0]
    assert (status["state"], status["status"]["error_code"]) == ("END", "UNKNOWN")
    assert len(status["status"]["error_message"]) > 20
    assert lame.metrics()[f'tidemill_model_ready{{model="{name}",version="1"}}'] == 0
    assert lame.client.get(f"/v2/models/{name}/ready").status_code == 503


def test_refused_models_do_not_keep_a_good_one_from_serving(lame: Server) -> None:
    assert lame.predict("good", {"instances": [[1]]}).json() == {"predictions": [[1.0]]}
    assert lame.client.get("/v2/models/good/ready").status_code == 200
    assert lame.client.get("/healthz").status_code == 200


def test_newest_version_is_served_and_all_on_request(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        echo(tmp_path / "models", "many", "FP32", (version,), version)
    with Server(
        tmp_path / "models", tmp_path / "data", "--no-auth", "--no-charge", "--version-policy", "all"
    ) as server:
        assert server.predict("many", {"inputs": [0] * 10}).status_code == 200
        assert server.client.post("/v1/models/many/versions/2:predict", json={"inputs": [0, 0]}).status_code == 200
        states = server.client.get("/v1/models/many").json()["model_version_status"]
        assert [each["version"] for each in states] == ["10", "2", "1"]
        unknown = server.client.post("/v1/models/many/versions/3:predict", json={"inputs": [0, 0]})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "model.version_unknown")
        assert "1, 2, 10" in unknown.json()["error"]


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ending(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(repository, tmp_path, "slow", "half", "--no-auth", "--drain-ms", "8000") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_draining_answers_what_runs_and_refuses_what_comes(ending: Server, number: signal.Signals) -> None:
    """Two slow requests run; on the connection kept open another comes, and gets an answer that says why not."""
    running = [ending.connect(), ending.connect()]
    waiting = ending.connect()
    assert waiting.ask(post("/v1/models/half:predict", b'{"instances":[4]}')).status == 200
    for wire in running:
        wire.send(post(SLOW, b'{"inputs": 7000}'))
    eventually(lambda: ending.in_flight == 2, "two run")
    ending.process.send_signal(number)
    eventually(lambda: _refuses(ending), "new ones are refused")
    assert [wire.answer().status for wire in running] == [200, 200]
    for wire in (*running, waiting):
        wire.socket.close()
    assert ending.ended() == 0
    log = [json.loads(line) for line in ending.stderr().splitlines()]
    assert [line["message"] for line in log if line["message"] in ("draining", "stopped")] == ["draining", "stopped"]
    assert not any("exception" in line for line in log)


def _refuses(server: Server) -> bool:
    try:
        answer = httpx.post(f"{server.url}/v1/models/half:predict", json={"instances": [1]}, timeout=5)
    except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
        return True
    if answer.status_code == 503:
        assert answer.json()["code"] == "admission.draining"
        assert int(answer.headers["retry-after"]) >= 1
        return True
    return False


@pytest.mark.slow
def test_drain_ends_in_time_even_if_a_request_does_not(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "slow", "--no-auth", "--drain-ms", "300") as server, server.connect() as wire:
        wire.send(post(SLOW, b'{"inputs": 20000}'))
        eventually(lambda: server.in_flight == 1, "it runs")
        server.process.terminate()
        answer = wire.answer()
        assert (answer.status, answer.code) == (503, "admission.draining")
        assert server.process.wait(8) == 0
        assert "Traceback" not in server.stderr()


def test_sending_a_body_does_not_hold_up_the_end(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "half", "--no-auth", "--drain-ms", "500") as server, server.connect() as wire:
        wire.send(headers_of("/v1/models/half:predict", 1000) + b"{")
        eventually(lambda: server.metrics()["tidemill_connections"] == 2, "it is connected")
        server.process.terminate()
        assert server.process.wait(8) == 0


def test_second_signal_does_no_harm(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "half", "--no-auth") as server:
        for _ in range(5):
            server.process.terminate()
        assert server.ended() == 0


# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talkative(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(
        repository, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge", "--access-log", "--log-level", "debug"
    ) as running:
        yield running


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.stderr().splitlines()]


def test_every_line_of_the_log_is_json_with_time_and_level(talkative: Server) -> None:
    told = lines(talkative)
    assert told
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in told)


def test_access_log_tells_the_callers_request_id_and_the_status(talkative: Server) -> None:
    talkative.predict("half", {"instances": [1]}, **{"x-request-id": "find-me"})
    talkative.predict("half", b"{", **{"x-request-id": "find-me-too"})
    talkative.infer("nobody", {}, **{"x-request-id": "find-me-three"})
    eventually(lambda: "find-me-three" in talkative.stderr(), "it is logged")
    told = {line["request_id"]: line for line in lines(talkative) if "find-me" in line.get("request_id", "")}
    assert {name: (line["status"], line["method"]) for name, line in told.items()} == {
        "find-me": (200, "POST"),
        "find-me-too": (400, "POST"),
        "find-me-three": (404, "POST"),
    }
    assert told["find-me"]["path"] == "/v1/models/half:predict"


def test_access_log_tells_calls_over_grpc(talkative: Server) -> None:
    def ask(path: str, request_id: str) -> None:
        with grpc.insecure_channel(talkative.told["grpc_address"]) as channel, contextlib.suppress(grpc.RpcError):
            channel.unary_unary(path)(b"", timeout=10, metadata=(("x-request-id", request_id),))

    ask("/inference.GRPCInferenceService/ServerLive", "grpc-one")
    ask("/inference.GRPCInferenceService/ModelInfer", "grpc-two")
    eventually(lambda: "grpc-two" in talkative.stderr(), "it is logged")
    told = [line for line in lines(talkative) if line.get("request_id", "").startswith("grpc-")]
    assert [(line["path"].rpartition("/")[2], line["status"], line["method"]) for line in told] == [
        ("ServerLive", "OK", "gRPC"),
        ("ModelInfer", "NOT_FOUND", "gRPC"),
    ]
    assert all(line["ms"] > 0 for line in told)


STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    """The only line of the access log about a call."""

    def found() -> list[dict[str, Any]]:
        told = [line for line in lines(server) if line["logger"] == "tidemill.access"]
        return [line for line in told if line.get("request_id") == request_id]

    eventually(lambda: bool(found()), f"{request_id} is logged")
    (line,) = found()
    return line


def streamed(channel: grpc.Channel, request_id: str, questions: Iterable[bytes]) -> Any:
    metadata = (("x-request-id", request_id),)
    return channel.stream_stream(STREAM)(iter(questions), timeout=WAIT_S_MAX, metadata=metadata)


def question(model: str) -> bytes:
    made = schemas.message("inference.ModelInferRequest")
    tensor = {"name": "input", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}}
    return bytes(made(model_name=model, inputs=[tensor]).SerializeToString())


def test_access_log_tells_a_stream_over_grpc_once_at_its_end(talkative: Server) -> None:
    with grpc.insecure_channel(talkative.told["grpc_address"]) as channel:
        answers = list(streamed(channel, "stream-one", [question("half"), question("nobody"), question("half")]))
        assert len(answers) == 3
        list(streamed(channel, "stream-two", []))
        with pytest.raises(grpc.RpcError):
            list(streamed(channel, "too long " * 20, [question("half")]))
    one, two = line_of(talkative, "stream-one"), line_of(talkative, "stream-two")
    assert (one["path"], one["method"], one["status"]) == (STREAM, "gRPC", "OK")
    assert (one["messages"], one["refused_messages"]) == (3, 1)
    assert (two["status"], two["messages"], two["refused_messages"]) == ("OK", 0, 0)
    assert one["ms"] > 0
    refused = [line for line in lines(talkative) if line.get("path") == STREAM and line["status"] == "INVALID_ARGUMENT"]
    assert [line["messages"] for line in refused] == [0]


def test_stream_whose_caller_goes_away_is_logged_as_cancelled(talkative: Server) -> None:
    gone = threading.Event()

    def one_and_no_end() -> Iterator[bytes]:
        yield question("half")
        gone.wait(WAIT_S_MAX)

    with grpc.insecure_channel(talkative.told["grpc_address"]) as channel:
        answers = streamed(channel, "stream-gone", one_and_no_end())
        next(answers)
        answers.cancel()
    gone.set()
    line = line_of(talkative, "stream-gone")
    assert (line["status"], line["messages"]) == ("CANCELLED", 1)


def test_vanished_client_is_logged_as_499(talkative: Server) -> None:
    wire = talkative.connect()
    wire.send(post(SLOW, b'{"inputs": 4000}', "x-request-id: vanished"))
    eventually(lambda: talkative.in_flight == 1, "it runs")
    wire.reset()
    eventually(lambda: "vanished" in talkative.stderr(), "it is logged")
    assert [line["status"] for line in lines(talkative) if line.get("request_id") == "vanished"] == [499]


def test_no_payload_and_no_key_is_in_any_line_of_the_log(talkative: Server) -> None:
    secret = "s3cr3t-payload"
    for body in ({"instances": [secret]}, {"instances": [1], secret: secret}, b'{"instances": ["s3cr3t-payload'):
        talkative.predict("half", body, authorization="Bearer tm-s3cr3t-key")
        talkative.predict("text", body, authorization="Bearer tm-s3cr3t-key")
        talkative.infer("half", body, authorization="Basic s3cr3t-user")
    talkative.client.get("/v1/models/half?key=s3cr3t-query")
    assert "s3cr3t" not in talkative.stderr()


@pytest.mark.parametrize("line", ["x-request-id: a\x1b[31mred", "x-request-id: a\x7fb"])
def test_request_id_cannot_write_into_a_terminal(talkative: Server, line: str) -> None:
    with talkative.connect() as wire:
        assert wire.ask(post("/v1/models/half:predict", b'{"instances":[1]}', line)).status == 400
    assert "\x1b" not in talkative.stderr()


def test_nothing_was_unforeseen(talkative: Server, server: Server, lame: Server) -> None:
    for each in (talkative, server, lame):
        assert [line for line in each.stderr().splitlines() if "Traceback" in line or "not foreseen" in line] == []


def test_small_models_are_what_they_say(tmp_path: Path) -> None:
    """The repository that these tests serve has no model that is not served."""
    with Server(lay_out(tmp_path / "models"), tmp_path / "data", "--no-auth", "--no-charge") as server:
        assert server.client.get("/readyz").json()["reasons"] == []
