"""V2's configuration, statistics and repository over gRPC, with fakes behind a real connection."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from doors.over_grpc import ADMIN, BEARER, KSERVE, asked, call, refused, serving
from fakes import HALVE, FakeServed, FakeService, halve
from tidemill.core import schemas
from tidemill.core.package import Batching, ModelConfig
from tidemill.core.running import BatchCounts, Counts, Timed
from tidemill.doors.kserve.grpc_control import NOT_OFFERED


def made(message: str, /, **fields: Any) -> bytes:
    return bytes(schemas.message(f"inference.{message}")(**fields).SerializeToString())


def read(name: str, body: bytes) -> Any:
    return schemas.message(f"inference.{name}").FromString(body)


class Counted(FakeServed):
    def counts(self) -> Counts:
        batch = BatchCounts(3, Timed(1, 5), Timed(1, 70), Timed(1, 2))
        return Counts(
            12, 4, 2, Timed(2, 100), Timed(1, 9), Timed(2, 20), Timed(2, 5), Timed(2, 70), Timed(2, 2), (batch,)
        )


def two_models() -> FakeService:
    service = FakeService(
        Counted("half", 2, HALVE, halve), FakeServed("half", 1, HALVE, halve), FakeServed("other", 1, HALVE, halve)
    )
    service.fleet.models[2].state = "FAILED"
    service.fleet.models[2].reason = "it is no model"
    return service


async def test_configuration_of_a_version() -> None:
    async with serving(two_models(), request_timeout_ms=5_000) as channel:
        body = await call(channel, KSERVE + "ModelConfig", made("ModelConfigRequest", name="half", version="2"))
        told, _, _ = await refused(channel, KSERVE + "ModelConfig", made("ModelConfigRequest", name="nobody"))
    config = read("ModelConfigResponse", body).config
    assert (config.name, config.backend, config.max_batch_size) == ("half", "fake", 8)
    assert config.dynamic_batching.default_queue_policy.default_timeout_microseconds == 5_000_000
    assert told is grpc.StatusCode.NOT_FOUND


async def test_statistics_of_one_version_of_all_and_of_every_model_that_serves() -> None:
    async with serving(two_models()) as channel:

        async def stats(**asked: str) -> list[Any]:
            body = await call(channel, KSERVE + "ModelStatistics", made("ModelStatisticsRequest", **asked))
            return list(read("ModelStatisticsResponse", body).model_stats)

        (one,) = await stats(name="half", version="2")
        assert [(each.name, each.version) for each in await stats(name="half")] == [("half", "1"), ("half", "2")]
        assert [(each.name, each.version) for each in await stats()] == [("half", "1"), ("half", "2")]
        told, _, _ = await refused(channel, KSERVE + "ModelStatistics", made("ModelStatisticsRequest", name="nobody"))
    assert told is grpc.StatusCode.NOT_FOUND
    assert (one.last_inference, one.inference_count, one.execution_count) == (12, 4, 2)
    stats_of = one.inference_stats
    assert (stats_of.success.count, stats_of.success.ns, stats_of.fail.count, stats_of.queue.ns) == (2, 100, 1, 20)
    assert (stats_of.compute_input.ns, stats_of.compute_infer.ns, stats_of.compute_output.ns) == (5, 70, 2)
    assert (one.batch_stats[0].batch_size, one.batch_stats[0].compute_infer.ns) == (3, 70)


async def test_the_index_tells_every_version_or_those_that_are_ready() -> None:
    service = two_models()
    async with serving(service) as channel:
        await call(
            channel, KSERVE + "RepositoryModelUnload", made("RepositoryModelUnloadRequest", model_name="half"), ADMIN
        )
        service.fleet.models = (*service.fleet.models, FakeServed("new", 1, HALVE, halve))
        service.models._on_disk = (*service.models._on_disk, service.fleet.models[-1])
        told = [
            [
                (each.name, each.version, each.state, each.reason)
                for each in read(
                    "RepositoryIndexResponse",
                    await call(channel, KSERVE + "RepositoryIndex", made("RepositoryIndexRequest", ready=ready), ADMIN),
                ).models
            ]
            for ready in (False, True)
        ]
    assert told[1] == [("new", "1", "READY", "")]
    assert told[0] == [
        ("half", "1", "UNAVAILABLE", "not loaded"),
        ("half", "2", "UNAVAILABLE", "not loaded"),
        *told[1],
        ("other", "1", "UNAVAILABLE", "it is no model"),
    ]


def load_request(config: Any = None, **parameters: Any) -> bytes:
    if config is not None:
        parameters["config"] = {"string_param": config if isinstance(config, str) else json.dumps(config)}
    return made("RepositoryModelLoadRequest", model_name="half", parameters=parameters)


async def test_a_model_is_loaded_with_the_configuration_asked_for() -> None:
    service = FakeService()
    async with serving(service) as channel:
        await call(channel, KSERVE + "RepositoryModelLoad", load_request(), ADMIN)
        await call(channel, KSERVE + "RepositoryModelLoad", load_request({"max_batch_size": 4}), ADMIN)
    assert service.models.configs == [
        ("half", None),
        ("half", ModelConfig(batching=Batching(max_batch=4))),
    ]


async def test_a_configuration_of_another_model_touches_nothing_that_serves() -> None:
    service = FakeService()
    wrong = {"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [-1]}]}
    async with serving(service) as channel:
        status, trailing, _ = await refused(
            channel, KSERVE + "RepositoryModelLoad", load_request(wrong), metadata=ADMIN
        )
        assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.INVALID_ARGUMENT, "setting.invalid")
        assert service.models.configs == []
        service.fleet.models = ()
        await refused(channel, KSERVE + "RepositoryModelLoad", load_request(wrong), metadata=ADMIN)
    assert service.fleet.models == ()


@pytest.mark.parametrize(
    ("method", "body", "code", "words"),
    [
        ("RepositoryModelLoad", load_request(**{"file:1/model.onnx": {"bytes_param": b"x"}}), "request.not_offered",
         "files are not taken over the wire"),
        ("RepositoryModelLoad", load_request(odd={"int64_param": 1}), "request.malformed", "'odd' is not known"),
        ("RepositoryModelLoad", load_request(config_={"bool_param": True}), "request.malformed", "config_"),
        ("RepositoryModelLoad", load_request("{"), "setting.invalid", "no JSON"),
        ("RepositoryModelLoad", made("RepositoryModelLoadRequest", model_name="half",
                                     parameters={"config": {"int64_param": 3}}), "request.malformed", "as a string"),
        ("RepositoryModelLoad", made("RepositoryModelLoadRequest", model_name="half", repository_name="far"),
         "request.malformed", "one repository"),
        ("RepositoryModelLoad", made("RepositoryModelLoadRequest", model_name="nobody"), "model.unknown", "nobody"),
        ("RepositoryModelUnload", made("RepositoryModelUnloadRequest", model_name="nobody"), "model.unknown", "nobody"),
        ("RepositoryModelUnload", made("RepositoryModelUnloadRequest", model_name="half",
                                       parameters={"odd": {"bool_param": True}}), "request.malformed", "odd"),
        ("RepositoryIndex", made("RepositoryIndexRequest", repository_name="far"), "request.malformed", "'far'"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_told(method: str, body: bytes, code: str, words: str) -> None:
    async with serving(FakeService()) as channel:
        _, trailing, details = await refused(channel, KSERVE + method, body, metadata=ADMIN)
    assert trailing["tidemill-code"] == code
    assert words in details


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"])
async def test_only_an_admin_key_may_control_the_repository(method: str) -> None:
    service = FakeService()
    body = b"" if method == "RepositoryIndex" else made(method + "Request", model_name="half")
    async with serving(service) as channel:
        status, trailing, _ = await refused(channel, KSERVE + method, body, metadata=BEARER)
        await call(channel, KSERVE + method, body, ADMIN)
    assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.PERMISSION_DENIED, "key.forbidden")


async def test_a_service_that_loads_nothing_says_so_and_does_not_offer_it() -> None:
    service = FakeService()
    async with serving(service) as channel:
        offered = read("ServerMetadataResponse", await call(channel, KSERVE + "ServerMetadata", b"")).extensions
        service.models = None  # type: ignore[assignment]
        fewer = read("ServerMetadataResponse", await call(channel, KSERVE + "ServerMetadata", b"")).extensions
        status, _, _ = await refused(channel, KSERVE + "RepositoryIndex", b"", metadata=ADMIN)
    assert set(offered) - set(fewer) == {"model_repository"}
    assert {"classification", "generate", "statistics", "model_configuration", "binary_tensor_data"} == set(fewer)
    assert status is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", NOT_OFFERED)
async def test_what_is_not_offered_is_refused_in_words(method: str) -> None:
    async with serving(FakeService()) as channel:
        status, trailing, details = await refused(channel, KSERVE + method, b"")
    assert (status, trailing["tidemill-code"]) == (grpc.StatusCode.UNIMPLEMENTED, "request.not_offered")
    assert details == NOT_OFFERED[method]


async def test_classes_are_answered_instead_of_the_tensor() -> None:
    service = FakeService(FakeServed("half", 1, HALVE, halve))
    wish = [{"name": "y", "parameters": {"classification": {"int64_param": 2}}}]
    async with serving(service) as channel:
        body = await call(channel, KSERVE + "ModelInfer", asked([[2, 8, 4]], outputs=wish))
    answer = read("ModelInferResponse", body)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
    assert answer.raw_output_contents[0] == b"\x0a\0\0\x004.000000:1\x0a\0\0\x002.000000:2"
