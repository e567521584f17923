"""V2's extensions over REST: configuration, statistics, classification, and what is refused."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from serving import Server


def asked(datatype: str, data: list[Any], shape: list[int], name: str = "x", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}], **more}


def classified(count: Any, **more: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "parameters": {"classification": count, **more}}]}


def test_configuration_is_what_is_in_force(server: Server) -> None:
    told = server.client.get("/v2/models/two/config").json()
    assert told == server.client.get("/v2/models/two/versions/1/config").json()
    assert (told["name"], told["backend"], told["platform"]) == ("two", "onnxruntime", "onnxruntime_onnx")
    assert told["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [3]}
    assert told["max_batch_size"] == 64
    assert told["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert server.client.get("/v2/models/fixed/config").json()["max_batch_size"] == 0
    assert server.client.get("/v2/models/nobody/config").status_code == 404


def stats(server: Server, path: str = "/v2/models/half/stats") -> dict[str, Any]:
    (told,) = server.client.get(path).json()["model_stats"]
    return dict(told)


def test_statistics_grow_with_what_is_asked(server: Server) -> None:
    before = stats(server)
    begun_ms = int(time.time() * 1000)
    for rows in (1, 3, 3):
        assert server.infer("half", asked("FP32", [1] * rows, [rows], "input")).status_code == 200
    assert server.infer("half", asked("FP64", [1], [1], "input")).status_code == 400
    after = stats(server, "/v2/models/half/versions/1/stats")
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["execution_count"] - before["execution_count"] == 3
    assert begun_ms - 1000 <= after["last_inference"] <= time.time() * 1000
    for kind, more in {"success": 3, "fail": 1, "queue": 3, "compute_infer": 3, "cache_hit": 0}.items():
        old, new = before["inference_stats"][kind], after["inference_stats"][kind]
        assert new["count"] - old["count"] == more
        assert new["ns"] >= old["ns"]
    old_runs, new_runs = (
        Counter({each["batch_size"]: each["compute_infer"]["count"] for each in told["batch_stats"]})
        for told in (before, after)
    )
    assert new_runs - old_runs == {1: 1, 3: 2}


def test_statistics_of_all_models(server: Server) -> None:
    told = server.client.get("/v2/models/stats").json()["model_stats"]
    assert {"half", "two", "echo-bf16"} <= {each["name"] for each in told}
    assert server.client.get("/v2/models/nobody/stats").status_code == 404
    assert server.client.get("/v2/models/half/versions/7/stats").status_code == 404


def test_the_largest_values_are_told_instead_of_the_tensor(server: Server) -> None:
    data = [1, 5, 10, 4, 8, 2, 2, 9]
    (told,) = server.infer("echo-fp32", asked("FP32", data, [2, 4], **classified(2))).json()["outputs"]
    assert told == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["10.000000:2", "5.000000:1", "9.000000:3", "8.000000:0"],
    }


def test_the_largest_values_in_bytes(server: Server) -> None:
    answer = server.infer("echo-int64", asked("INT64", [2**53 + 1, 7], [1, 2], **classified(1, binary_data=True)))
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:length])["outputs"][0]["datatype"] == "BYTES"
    assert answer.content[length:] == b"\x12\0\0\0" + b"9007199254740993:0"


def test_no_classes_are_the_tensor_itself(server: Server) -> None:
    (told,) = server.infer("echo-fp32", asked("FP32", [3], [1, 1], **classified(0))).json()["outputs"]
    assert told["data"] == [3.0]


@pytest.mark.parametrize(("datatype", "data"), [("BYTES", ["a"]), ("BOOL", [True])])
def test_what_has_no_order_has_no_classes(server: Server, datatype: str, data: list[Any]) -> None:
    answer = server.infer(f"echo-{datatype.lower()}", asked(datatype, data, [1, 1], **classified(1)))
    assert (answer.status_code, answer.json()["code"]) == (400, "input.datatype")
    assert f"'y' is {datatype}" in answer.json()["error"]


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_whole_numbers_beyond_what_a_double_holds_come_back_as_they_were(server: Server, datatype: str) -> None:
    limits = np.iinfo(datatype.lower())
    data = [2**53 + 1, int(limits.max), int(limits.min)]
    answer = server.infer(f"echo-{datatype.lower()}", asked(datatype, data, [1, 3]))
    assert answer.json()["outputs"][0]["data"] == data
    for beyond in (int(limits.max) + 1, int(limits.min) - 1):
        answer = server.infer(f"echo-{datatype.lower()}", asked(datatype, [beyond], [1, 1]))
        assert (answer.status_code, answer.json()["code"]) == (400, "input.value")


def test_shared_memory_is_refused(server: Server) -> None:
    given = {"name": "input", "datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "r"}}
    answer = server.infer("half", {"inputs": [given]})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.not_offered")
    assert "shared memory is not served" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/systemsharedmemory/region/r/status"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/r/register"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/half/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
def test_what_is_not_offered_is_refused_in_words(server: Server, method: str, path: str) -> None:
    answer = server.client.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.not_offered")
    assert len(answer.json()["error"]) > 20


def test_the_server_tells_what_it_offers(server: Server) -> None:
    told = set(server.client.get("/v2").json()["extensions"])
    assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= told
    assert not told & {"system_shared_memory", "cuda_shared_memory", "sequence", "trace", "logging"}
    listed = server.client.post("/v2/repository/index").status_code == 200
    assert ("model_repository" in told) == listed
