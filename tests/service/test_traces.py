"""Traces of the real server, as a real collector takes them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fakes import FakeCollector
from serving import Server, eventually, post, tidemill
from tidemill.core.schemas import message

OPEN = ("half", "slow", "--no-auth", "--no-charge")
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ERROR = 2


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: FakeCollector, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = (*OPEN, "--otlp-endpoint", collector.url)
    with Server(repository, tmp_path_factory.mktemp("data"), *flags) as running:
        yield running


def told(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def spans_of(collector: FakeCollector, request_id: str, count: int) -> dict[str, Any]:
    """The `count` spans of a request by their names, once they have come."""
    found: list[Any] = []

    def have() -> bool:
        mine = [each for each in list(collector.spans) if told(each).get("tidemill.request_id") == request_id]
        found[:] = [each for each in list(collector.spans) if mine and each.trace_id == mine[0].trace_id]
        return len(found) >= count

    eventually(have, f"{count} spans of {request_id}")
    assert len(found) == count
    return {each.name: each for each in found}


def test_a_request_is_a_span_with_its_queue_and_its_engine_below_it(traced: Server, collector: FakeCollector) -> None:
    before = time.time_ns()
    assert traced.predict("half", {"instances": [1.0, 2.0]}, **{"x-request-id": "one"}).status_code == 200
    after = time.time_ns()
    spans = spans_of(collector, "one", 3)
    request, queue, compute = spans["infer"], spans["queue"], spans["compute"]
    assert request.parent_span_id == b""
    assert queue.parent_span_id == compute.parent_span_id == request.span_id
    slack = 5_000_000
    moments = [request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
    moments += [compute.end_time_unix_nano, request.end_time_unix_nano]
    assert before - slack <= moments[0]
    assert moments[-1] <= after + slack
    assert all(early <= late + slack for early, late in itertools.pairwise(moments))
    assert queue.end_time_unix_nano == compute.start_time_unix_nano
    assert told(request) == {
        "http.request.method": "POST",
        "url.path": "/v1/models/half:predict",
        "http.response.status_code": 200,
        "tidemill.model": "half",
        "tidemill.version": 1,
        "tidemill.request_id": "one",
    }
    assert told(compute) == {"tidemill.rows": 2, "tidemill.batch.rows": 2, "tidemill.batch.requests": 1}
    assert collector.resources[-1]["service.name"] == "tidemill"


def test_a_callers_trace_goes_on(traced: Server, collector: FakeCollector) -> None:
    sent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "below"}
    traced.predict("half", {"instances": [1.0]}, **sent)
    request = spans_of(collector, "below", 3)["infer"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)


def test_a_caller_that_does_not_want_to_be_traced_is_not(traced: Server, collector: FakeCollector) -> None:
    unwanted = "1" * 32
    traced.predict("half", {"instances": [1.0]}, traceparent=f"00-{unwanted}-{CALLER}-00")
    traced.predict("half", {"instances": [1.0]}, **{"x-request-id": "after"})
    spans_of(collector, "after", 3)
    assert unwanted not in {each.trace_id.hex() for each in collector.spans}


@pytest.mark.parametrize("odd", ["", "00-x-y-z", "garbage", f"00-{'0' * 32}-{CALLER}-01", "0" * 5000])
def test_a_traceparent_that_is_none_begins_a_new_trace(traced: Server, collector: FakeCollector, odd: str) -> None:
    name = f"odd{len(odd)}"
    assert traced.predict("half", {"instances": [1]}, **{"traceparent": odd, "x-request-id": name}).status_code == 200
    assert spans_of(collector, name, 3)["infer"].parent_span_id == b""


def test_a_refusal_has_its_code_and_no_children(traced: Server, collector: FakeCollector) -> None:
    traced.predict("half", {"instances": ["x"]}, **{"x-request-id": "wrong"})
    traced.predict("nobody", {"instances": [1]}, **{"x-request-id": "nobody"})
    wrong = told(spans_of(collector, "wrong", 1)["infer"])
    assert (wrong["tidemill.code"], wrong["http.response.status_code"]) == ("input.datatype", 400)
    assert told(spans_of(collector, "nobody", 1)["infer"])["tidemill.code"] == "model.unknown"


def test_our_own_failure_is_marked_as_an_error(traced: Server, collector: FakeCollector) -> None:
    late = {"x-request-id": "late", "x-request-timeout-ms": "1"}
    assert traced.predict("slow", {"inputs": 3000}, **late).status_code == 504
    found = []

    def have() -> bool:
        found[:] = [each for each in list(collector.spans) if told(each).get("tidemill.request_id") == "late"]
        return bool(found)

    eventually(have, "its span")
    assert told(found[0])["tidemill.code"] == "request.deadline"
    assert found[0].status.code == ERROR


def test_a_vanished_caller_is_a_span_too(traced: Server, collector: FakeCollector) -> None:
    wire = traced.connect()
    wire.send(post("/v1/models/slow:predict", b'{"inputs": 3000}', "x-request-id: vanished"))
    eventually(lambda: traced.in_flight == 1, "it runs")
    wire.reset()
    eventually(lambda: any(told(each).get("tidemill.request_id") == "vanished" for each in collector.spans), "a span")


def test_requests_that_share_a_batch_tell_its_size(traced: Server, collector: FakeCollector) -> None:
    """Behind a slow one, several wait; whatever batches they form, their spans say which."""
    with traced.connect() as first:
        first.send(post("/v1/models/slow:predict", b'{"inputs": 2000}'))
        assert first.answer().status == 200
    values = [float(value) for value in range(130)]
    traced.predict("half", {"instances": values}, **{"x-request-id": "large"})
    eventually(
        lambda: sum(told(each).get("tidemill.rows", 0) for each in collector.spans if each.name == "compute") >= 130,
        "all rows",
    )
    assert max(told(each)["tidemill.batch.rows"] for each in collector.spans if each.name == "compute") <= 64


def test_grpc_is_traced_alike(traced: Server, collector: FakeCollector) -> None:
    request = message("inference.ModelInferRequest")(
        model_name="half",
        inputs=[{"name": "input", "datatype": "FP32", "shape": [2]}],
        raw_input_contents=[np.array([1, 2], np.float32).tobytes()],
    )
    metadata = (("x-request-id", "over-grpc"), ("traceparent", f"00-{'2' * 32}-{CALLER}-01"))
    with grpc.insecure_channel(traced.told["grpc_address"]) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        infer(request.SerializeToString(), metadata=metadata, timeout=20)
        request.model_name = "nobody"
        with pytest.raises(grpc.RpcError):
            infer(request.SerializeToString(), metadata=(("x-request-id", "over-grpc-2"),), timeout=20)
    spans = spans_of(collector, "over-grpc", 3)
    assert spans["infer"].trace_id.hex() == "2" * 32
    assert told(spans["infer"])["tidemill.model"] == "half"
    refused = told(spans_of(collector, "over-grpc-2", 1)["infer"])
    assert (refused["tidemill.code"], refused["rpc.grpc.status_code"]) == ("model.unknown", 5)


def test_health_and_metrics_are_not_traced(traced: Server, collector: FakeCollector) -> None:
    traced.client.get("/healthz")
    traced.metrics()
    traced.predict("half", {"instances": [1]}, **{"x-request-id": "last"})
    spans_of(collector, "last", 3)
    assert {each.name for each in collector.spans} == {"infer", "queue", "compute"}


@pytest.mark.slow
def test_a_collector_that_is_down_harms_nothing_and_is_told_once(repository: Path, tmp_path: Path) -> None:
    """Down from the start, then up, then down as the service ends: requests are answered, the end is on time."""
    with FakeCollector() as flaky:
        flaky.status = 400
        flags = (*OPEN, "--otlp-endpoint", flaky.url + "/", "--otlp-queue-max", "64")
        with Server(repository, tmp_path, *flags) as server:
            for _ in range(300):
                assert server.predict("half", {"instances": [1.0]}).status_code == 200
            eventually(lambda: flaky.asked > 0 and "takes no spans" in server.stderr(), "it is told")
            for _ in range(100):
                assert server.predict("half", {"instances": [1.0]}).status_code == 200
            flaky.status = 200

            def again() -> bool:
                server.predict("half", {"instances": [1.0]})
                return "takes spans again" in server.stderr()

            eventually(again, "it is well again")
            assert flaky.spans
            flaky.status = 503
            server.predict("half", {"instances": [1.0]})
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 8
        lines = [json.loads(line) for line in server.stderr().splitlines()]
        assert len([line for line in lines if "takes no spans" in line["message"]]) <= 2
        assert not any(line["logger"].startswith("opentelemetry") for line in lines)


def test_a_collector_that_is_nowhere_harms_nothing(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, *OPEN, "--otlp-endpoint", "http://127.0.0.1:9") as server:
        assert server.predict("half", {"instances": [1.0]}).status_code == 200
        assert server.stop() == 0


def test_what_is_left_is_sent_before_the_end(repository: Path, tmp_path: Path) -> None:
    with FakeCollector() as quick, Server(repository, tmp_path, *OPEN, "--otlp-endpoint", quick.url) as server:
        server.predict("half", {"instances": [1.0]}, **{"x-request-id": "at-the-end"})
        assert server.stop() == 0
        assert set(spans_of(quick, "at-the-end", 3)) == {"infer", "queue", "compute"}


def test_sampling_leaves_most_out_but_not_those_whose_caller_asks(repository: Path, tmp_path: Path) -> None:
    with FakeCollector() as few:
        flags = (*OPEN, "--otlp-endpoint", few.url, "--otlp-sample-percent", "0")
        with Server(repository, tmp_path, *flags) as server:
            for _ in range(20):
                server.predict("half", {"instances": [1.0]})
            wanted = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "wanted"}
            server.predict("half", {"instances": [1.0]}, **wanted)
            assert server.stop() == 0
        assert set(spans_of(few, "wanted", 3)) == {"infer", "queue", "compute"}
        assert len(few.spans) == 3


@pytest.mark.parametrize("address", ["collector:4318", "grpc://h:4317", "http://", "x"])
def test_an_address_that_is_none_is_misuse(repository: Path, tmp_path: Path, address: str) -> None:
    ran = tidemill("serve", "--models", repository, "--data-dir", tmp_path, "--no-auth", "--otlp-endpoint", address)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "http://HOST:4318" in ran.stderr


def test_each_message_of_a_stream_is_a_span(traced: Server, collector: FakeCollector) -> None:
    request = message("inference.ModelInferRequest")(
        model_name="half",
        inputs=[{"name": "input", "datatype": "FP32", "shape": [2]}],
        raw_input_contents=[np.array([1, 2], np.float32).tobytes()],
    )
    parent = "3" * 32
    metadata = (("traceparent", f"00-{parent}-{CALLER}-01"),)
    with grpc.insecure_channel(traced.told["grpc_address"]) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        answers = list(stream(iter([request.SerializeToString()] * 3), metadata=metadata, timeout=20))
    assert len(answers) == 3

    def names() -> list[str]:
        return sorted(each.name for each in list(collector.spans) if each.trace_id.hex() == parent)

    eventually(lambda: names() == ["compute"] * 3 + ["infer"] * 3 + ["queue"] * 3, "nine spans")


def test_questions_about_models_are_not_traced(traced: Server, collector: FakeCollector) -> None:
    asked = message("inference.ModelMetadataRequest")(name="half").SerializeToString()
    unseen = "4" * 32
    with grpc.insecure_channel(traced.told["grpc_address"]) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        method(asked, metadata=(("traceparent", f"00-{unseen}-{CALLER}-01"),), timeout=20)
    traced.predict("half", {"instances": [1]}, **{"x-request-id": "after-questions"})
    spans_of(collector, "after-questions", 3)
    assert unseen not in {each.trace_id.hex() for each in collector.spans}
