"""Every door's request, sent to a real service, is the question that was meant; the service says what it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import Server, repository, server
from tidemill.client.bench import inputs
from tidemill.client.bench.measure import Side, code_of, first_answer, measured
from tidemill.client.bench.meter import Meter, Till
from tidemill.client.bench.payload import TENSOR_DOORS, payload, speaks_grpc
from tidemill.client.bench.plan import Level, Plan
from tidemill.client.bench.target import Target, signature_of, target
from tidemill.client.cpu import listeners
from tidemill.client.result import Answer
from tidemill.core.errors import InvalidSetting, ServerRefused
from tidemill.core.schemas import message
from tidemill.core.tensor import DTYPES, Array, Signature, TensorSpec

__all__ = ["repository", "server"]

PLAN = Plan((), 1, 0.2, 40, 0.0, 4, 10.0)


def at(server: Server, door: str, model: str, key: str | None = None) -> Target:
    url = server.told["grpc_address"] if speaks_grpc(door) else server.url
    return target("this", door, url, model, key, server.url)


def side_of(server: Server, door: str, model: str) -> tuple[Side, dict[str, Array]]:
    where = at(server, door, model)
    signature = signature_of(where)
    tensors = inputs.made(signature, rows=2, shapes={"x": [2, 3]} if model.startswith("echo") else None)
    made = payload(door, where.model, where.version, signature, tensors)
    return Side(where, [made], Meter(where)), tensors


def answered(door: str, answer: Answer) -> list[Any]:
    """The values of the only output, flat."""
    if door == "v2-grpc":
        reply = message("inference.ModelInferResponse").FromString(answer.body)
        return _values(reply.raw_output_contents[0], reply.outputs[0].datatype)
    if door == "tfs-grpc":
        tensor = message("tensorflow.serving.PredictResponse").FromString(answer.body).outputs["y"]
        if tensor.string_val:
            return list(tensor.string_val)
        fields = ("float_val", "double_val", "int_val", "int64_val", "bool_val", "uint32_val", "uint64_val", "half_val")
        found = next((list(getattr(tensor, name)) for name in fields if getattr(tensor, name)), None)
        return found if found is not None else [tensor.tensor_content]
    if door == "v2":
        head = json.loads(answer.body[: answer.body.index(b"}]}") + 3])
        return _values(answer.body[answer.body.index(b"}]}") + 3 :], head["outputs"][0]["datatype"])
    told = json.loads(answer.body)
    data = told["outputs"][0]["data"] if door == "v2-json" else told["predictions"]
    return list(np.array(data, dtype=object).ravel())


def _values(raw: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPES[datatype]).tolist()
    found = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return found


@pytest.mark.parametrize("datatype", sorted(DTYPES))
@pytest.mark.parametrize("door", TENSOR_DOORS)
async def test_an_echo_gives_back_what_was_sent(server: Server, door: str, datatype: str) -> None:
    side, tensors = side_of(server, door, f"echo-{datatype.lower()}")
    answer = await first_answer(side)
    (sent,) = tensors.values()
    got = answered(door, answer)
    if door == "tfs-grpc" and datatype in ("FP16", "BF16"):  # the field holds their bits
        assert got == [int(each) for each in sent.ravel().view(np.uint16)]
    elif datatype == "BYTES":
        assert [each.encode() if isinstance(each, str) else each for each in got] == sent.ravel().tolist()
    else:
        assert np.allclose(np.array(got, np.float64), sent.ravel().astype(np.float64), atol=1e-6)


@pytest.mark.parametrize("door", TENSOR_DOORS)
async def test_several_inputs_and_a_version_are_asked_for(server: Server, door: str) -> None:
    where = at(server, door, "two@1")
    assert (where.model, where.version) == ("two", "1")
    signature = signature_of(where)
    assert {each.name for each in signature.inputs} == {"a", "b", "count"}
    made = payload(door, "two", "1", signature, inputs.made(signature, rows=3))
    await first_answer(Side(where, [made], Meter(where)))


@pytest.mark.parametrize("door", TENSOR_DOORS)
@pytest.mark.parametrize("level", [Level(in_flight=2), Level(rate=100.0)], ids=lambda level: level.label)
async def test_a_point_is_measured(server: Server, door: str, level: Level) -> None:
    side, _ = side_of(server, door, "half")
    side.where = side.where.owned(listeners(side.where.host, side.where.port))
    assert side.where.pids == (server.process.pid,)
    side.meter = Meter(side.where)
    point = await measured(side, level, PLAN, 1000.0, 0)
    assert point.errors == {}
    assert 0 < point.ok == point.sent <= 40
    assert point.per_second > 0
    assert point.goodput is not None
    assert 0 < (point.p50_ms or 0) <= (point.p90_ms or 0) <= (point.p99_ms or 0)
    assert point.cpu_us is not None
    assert point.cpu_us > 0
    assert (point.rows_per_batch or 0) >= 1
    assert (point.lag_ms is None) == (not level.rate)


@pytest.mark.parametrize("door", TENSOR_DOORS)
async def test_errors_are_counted_by_code_and_are_no_answers(server: Server, door: str) -> None:
    side, _ = side_of(server, door, "half")
    wrong = TensorSpec("inputt", "FP32", (1,))
    tensors = inputs.made(Signature((wrong,), ()))
    side.payloads = [payload(door, "half", "", Signature((wrong,), (wrong,)), tensors | {"b": tensors["inputt"]})]
    point = await measured(side, Level(in_flight=1), PLAN, None, 0)
    assert (point.ok, point.p50_ms, point.per_second) == (0, None, 0.0)
    assert list(point.errors) == ["INVALID_ARGUMENT" if speaks_grpc(door) else "input.unknown"]
    with pytest.raises(ServerRefused, match="input"):
        await first_answer(side)


@pytest.mark.parametrize("door", TENSOR_DOORS)
def test_a_model_that_is_not_there_is_told(server: Server, door: str) -> None:
    with pytest.raises(ServerRefused, match="halve"):
        signature_of(at(server, door, "halve"))


@pytest.mark.parametrize("door", TENSOR_DOORS)
def test_nothing_that_listens_is_told(door: str) -> None:
    with pytest.raises(ServerRefused, match="listens at"):
        signature_of(target("this", door, "http://127.0.0.1:1", "half"))


def test_money_is_what_the_ledger_booked(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path / "data", "--no-auth", "--call-nanos", "2500000") as running:
        till = Till(at(running, "v2", "half"))
        assert till.units_per_1000() is None
        for _ in range(3):
            assert running.predict("half", {"instances": [1.0]}).status_code == 200
        assert till.units_per_1000() == pytest.approx(2.5)


def test_a_server_that_books_nothing_tells_no_price(server: Server) -> None:
    assert Till(at(server, "v2", "half")).units_per_1000() is None


@pytest.mark.parametrize(
    ("door", "url"),
    [
        ("v2", "127.0.0.1:8000"),
        ("v2", "ftp://h"),
        ("v2-grpc", "127.0.0.1"),
        ("tfs-grpc", "https://h:1"),
        ("v2", "http://h:x"),
    ],
)
def test_a_url_that_does_not_fit_the_door_is_refused(door: str, url: str) -> None:
    with pytest.raises(InvalidSetting):
        target("this", door, url, "m")


def test_a_door_that_is_not_spoken_is_refused_by_name() -> None:
    with pytest.raises(InvalidSetting, match="v3"):
        target("other", "v3", "http://127.0.0.1:1", "m")


def test_a_status_is_told_where_the_body_names_no_code() -> None:
    assert code_of("v2", Answer(0, 502, 0.1, body=b"<html>")) == "502"
    assert code_of("v2", Answer(0, 429, 0.1, body=b'{"code": 7}')) == "429"
    assert code_of("v2", Answer(0, 503, 0.1, body=b'{"code": "admission.overloaded"}')) == "admission.overloaded"
    assert code_of("v2-grpc", Answer(0, 14, 0.1)) == "UNAVAILABLE"
    assert code_of("v2", Answer(0, 200, 0.1)) == ""
