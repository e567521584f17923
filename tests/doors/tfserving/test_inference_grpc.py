"""Classify, Regress, MultiInference, status and reload over gRPC, with a true service behind the door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fakes import ADMIN_KEY, HALVE, KEY, FakeServed, FakeService, halve
from tidemill.core import schemas
from tidemill.core.package import ModelEntry, VersionPolicy
from tidemill.core.request import Usage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature, Tensors, TensorSpec
from tidemill.doors import grpc_server

PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
LIMIT_S = 20
METHODS = {
    method.name: (f"/{service}/{method.name}", method.input_type, method.output_type)
    for service in (PREDICTION, MODEL)
    for method in schemas.pool().FindServiceByName(service).methods
}


def message(name: str, **fields: Any) -> Any:
    return schemas.message(f"tensorflow.serving.{name}")(**fields)


def example(**features: Any) -> Any:
    """A `tensorflow.Example`; whole numbers, other numbers and bytes go to the list of their kind."""
    made = schemas.message("tensorflow.Example")()
    for name, values in features.items():
        kind = (
            {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(values[0])] if values else "float_list"
        )
        getattr(made.features.feature[name], kind).value.extend(values)
    return made


def listed(*examples: Any, context: Any = None) -> Any:
    if context is None:
        return {"example_list": {"examples": examples}}
    return {"example_list_with_context": {"examples": examples, "context": context}}


def spec(name: str, datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def ranked(inputs: Tensors) -> Tensors:
    x = inputs["x"]
    names = np.empty(x.shape, object)
    names[:] = [[b"low", b"high"]] * len(x)
    return {"scores": x * 2, "classes": names, "value": x.sum(1)}


RANKED = FakeServed(
    "ranked",
    1,
    Signature(
        (spec("x", "FP32", -1, 2),),
        (spec("scores", "FP32", -1, 2), spec("classes", "BYTES", -1, 2), spec("value", "FP32", -1)),
    ),
    ranked,
)
EVERY = FakeServed(
    "every",
    1,
    Signature(
        (
            spec("number", "INT32", -1),
            spec("wide", "FP64", -1, 2, 2),
            spec("flag", "BOOL", -1),
            spec("text", "BYTES", -1, 1),
            spec("rate", "INT64"),
        ),
        (spec("y", "FP32", -1, 1),),
    ),
    lambda given: {"y": np.zeros((len(given["number"]), 1), np.float32)},
)
PARSER = FakeServed(
    "parser",
    1,
    Signature((spec("inputs", "BYTES", -1),), (spec("outputs", "FP32", -1),), "score", REGRESS),
    lambda given: {"outputs": np.array([parsed(each)["x"][0] for each in given["inputs"]], np.float32)},
)


def parsed(encoded: bytes) -> dict[str, list[Any]]:
    found = schemas.message("tensorflow.Example").FromString(encoded).features.feature
    return {name: list(getattr(each, each.WhichOneof("kind")).value) for name, each in found.items()}


class Client:
    def __init__(self, service: FakeService, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.channel = channel

    async def ask(self, method: str, key: str = KEY, **fields: Any) -> Any:
        path, takes, gives = METHODS[method]
        request = schemas.message(takes.full_name)(**fields)
        asked = self.channel.unary_unary(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=schemas.message(gives.full_name).FromString,
        )
        return await asked(request, metadata=(("authorization", f"Bearer {key}"),), timeout=LIMIT_S)

    async def refusal(self, method: str, key: str = KEY, **fields: Any) -> tuple[grpc.StatusCode, str, str]:
        """Status, our code and the details of what must fail; nothing is booked."""
        before = len(self.service.ledger.booked)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(method, key, **fields)
        assert len(self.service.ledger.booked) == before
        trailing = dict(caught.value.trailing_metadata() or ())
        return caught.value.code(), trailing["tidemill-code"], caught.value.details() or ""


@asynccontextmanager
async def serving(*models: FakeServed) -> AsyncIterator[Client]:
    service = FakeService(*models)
    server, port = await grpc_server.start(service, "127.0.0.1", 0, Settings())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Client(service, channel)
    finally:
        await server.stop(0)


async def test_classify_answers_classes_with_scores() -> None:
    async with serving(RANKED) as client:
        told = await client.ask(
            "Classify", model_spec={"name": "ranked"}, input=listed(example(x=[1.0, 2.0]), example(x=[3.0, 0.5]))
        )
        assert [request.work.outputs for request in client.service.fleet.requests] == [("classes", "scores")]
        assert list(client.service.ledger.booked.values()) == [Usage(rows=2)]
    found = [[(each.label, each.score) for each in row.classes] for row in told.result.classifications]
    assert found == [[("low", 2.0), ("high", 4.0)], [("low", 6.0), ("high", 1.0)]]
    spec_told = told.model_spec
    assert (spec_told.name, spec_told.version.value, spec_told.signature_name) == ("ranked", 1, "serving_default")


async def test_labels_of_the_model_name_its_classes() -> None:
    served = FakeServed("half", 1, HALVE, halve)
    served.labels = ("cat", "dog")
    asked = {"model_spec": {"name": "half"}, "input": listed(example(x=[2.0, 4.0]))}
    async with serving(served) as client:
        told = await client.ask("Classify", **asked)
        assert [each.label for each in told.result.classifications[0].classes] == ["cat", "dog"]
    served.labels = ("cat", "dog", "cow")
    async with serving(served) as client:
        status, code, details = await client.refusal("Classify", **asked)
    assert (status, code) == (grpc.StatusCode.INTERNAL, "engine.failed")
    assert "2 scores, its labels (tidemill.toml, labels.txt) are 3" in details


async def test_regress_answers_a_value_for_each_example() -> None:
    async with serving(RANKED) as client:
        told = await client.ask(
            "Regress", model_spec={"name": "ranked"}, input=listed(example(x=[1, 2]), example(x=[3.0, 0.5]))
        )
        assert [request.work.outputs for request in client.service.fleet.requests] == [("value",)]
    assert [each.value for each in told.result.regressions] == [3.0, 3.5]
    assert told.model_spec.version.value == 1


async def test_the_model_runs_once_for_all_tasks() -> None:
    tasks = [
        {"model_spec": {"name": "ranked"}, "method_name": REGRESS},
        {"model_spec": {"name": "ranked"}, "method_name": CLASSIFY},
    ]
    async with serving(RANKED) as client:
        told = await client.ask("MultiInference", tasks=tasks, input=listed(example(x=[1.0, 2.0])))
        assert len(client.service.fleet.requests) == len(client.service.ledger.booked) == 1
    first, second = told.results
    assert [each.value for each in first.regression_result.regressions] == [3.0]
    assert [each.score for each in second.classification_result.classifications[0].classes] == [2.0, 4.0]
    assert {each.model_spec.signature_name for each in told.results} == {"serving_default"}


async def test_tasks_of_two_signatures_are_one_charge_and_each_signature_runs_once() -> None:
    x = spec("x", "FP32", -1, 2)
    kinds = Signature((x,), (spec("scores", "FP32", -1, 2),), "kinds", CLASSIFY)
    total = Signature((x,), (spec("outputs", "FP32", -1),), "sum", REGRESS)
    own = Signature((x,), (spec("scores", "FP32", -1, 2), spec("value", "FP32", -1)), further=(kinds, total))
    served = FakeServed("several", 1, own, lambda given: {**ranked(given), "outputs": given["x"].sum(1) + 100})
    asked = [("sum", REGRESS), ("kinds", CLASSIFY), ("", CLASSIFY), ("serving_default", REGRESS)]
    tasks = [{"model_spec": {"name": "several", "signature_name": name}, "method_name": how} for name, how in asked]
    async with serving(served) as client:
        told = await client.ask("MultiInference", tasks=tasks, input=listed(example(x=[1.0, 2.0])))
        found = [(each.work.signature, each.work.outputs) for each in client.service.fleet.requests]
        assert len({each.charge_id for each in client.service.fleet.requests}) == 1
        assert list(client.service.ledger.booked.values()) == [Usage(rows=1)]
        wrong = [tasks[0], task(CLASSIFY, name="several", signature_name="sum")]
        refused = await client.refusal("MultiInference", tasks=wrong, input=listed(example(x=[1.0, 2.0])))
        assert client.service.gate.held == 0
    assert found == [("sum", ("outputs",)), ("kinds", ("scores",)), ("", ("scores", "value"))]
    assert refused[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "model.signature_unknown")
    first, second, third, fourth = told.results
    assert [each.value for each in first.regression_result.regressions] == [103.0]
    for each in (second, third):
        assert [one.score for one in each.classification_result.classifications[0].classes] == [2.0, 4.0]
    assert [each.value for each in fourth.regression_result.regressions] == [3.0]
    names = [each.model_spec.signature_name for each in told.results]
    assert names == ["sum", "kinds", "serving_default", "serving_default"]


async def test_features_become_inputs_of_every_kind_and_shape() -> None:
    examples = (
        example(number=[7], wide=[1, 2, 3, 4], flag=[1], text=[b"a"], more=[b"?"]),
        example(number=[-7], wide=[0.5, 0.0, 0.0, 0.25], flag=[0]),
    )
    context = example(rate=[16000], text=[b"shared"])
    async with serving(EVERY) as client:
        await client.ask("Regress", model_spec={"name": "every"}, input=listed(*examples, context=context))
        (request,) = client.service.fleet.requests
    found = request.work.inputs
    assert {name: array.tolist() for name, array in found.items()} == {
        "number": [7, -7],
        "wide": [[[1, 2], [3, 4]], [[0.5, 0], [0, 0.25]]],
        "flag": [True, False],
        "text": [[b"a"], [b"shared"]],
        "rate": 16000,
    }
    EVERY.signature.check(found)


async def test_a_model_that_parses_examples_gets_them_with_the_context_within() -> None:
    context = example(x=[7.0], y=[1])
    async with serving(PARSER) as client:
        for name in ("", "serving_default", "score"):
            told = await client.ask(
                "Regress",
                model_spec={"name": "parser", "signature_name": name},
                input=listed(example(x=[2.0]), example(), context=context),
            )
            assert [each.value for each in told.result.regressions] == [2.0, 7.0]
            assert told.model_spec.signature_name == (name or "serving_default")
        request = client.service.fleet.requests[0]
        assert parsed(request.work.inputs["inputs"][0]) == {"x": [2.0], "y": [1]}


async def test_a_signature_is_for_what_it_says() -> None:
    async with serving(PARSER) as client:
        found = await client.refusal("Classify", model_spec={"name": "parser"}, input=listed(example(x=[2.0])))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "model.signature_unknown")
        assert f"is for {REGRESS}, not for {CLASSIFY}" in found[2]


@pytest.mark.parametrize("method", ["Classify", "Regress"])
@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({}, "model.unknown", "''"),
        ({"model_spec": {"name": "nobody"}}, "model.unknown", "nobody"),
        ({"model_spec": {"name": "ranked", "version": {"value": 9}}}, "model.version_unknown", "9"),
        ({"model_spec": {"name": "ranked", "version_label": "x"}}, "model.label_unknown", "'x'"),
        ({"model_spec": {"name": "ranked", "signature_name": "x"}}, "model.signature_unknown", "'x'"),
        ({"input": listed()}, "request.malformed", "empty"),
        ({"input": {"example_list": {}}}, "request.malformed", "empty"),
        ({"input": listed(context=example(x=[1]))}, "request.malformed", "empty"),
        ({"input": listed(example())}, "input.missing", "example 0 has no feature 'x'"),
        ({"input": listed(example(y=[1]))}, "input.missing", "its features are y"),
        ({"input": listed(example(x=[1, 2]), example())}, "input.missing", "example 1"),
        ({"input": listed(example(x=[1, 2, 3]))}, "input.shape", "3 values in feature 'x', expected 2"),
        ({"input": listed(example(x=[]))}, "input.shape", "0 values"),
        ({"input": listed(example(x=[1, 2]), example(x=[1]))}, "input.shape", "example 1 has 1"),
        ({"input": listed(example(x=[b"1", b"2"]))}, "input.datatype", "strings, expected FP32"),
        ({"input": listed(example(x=[1, 2]), example(x=[b"1", b"2"]))}, "input.datatype", "strings"),
        ({"input": listed(example(x=[2**24 + 1, 2]))}, "input.value", "16777217"),
        ({"input": listed(example(x=[-(2**63), 2**63 - 1]))}, "input.value", "9223372036854775807"),
    ],
)
async def test_what_does_not_fit_is_told(method: str, fields: dict[str, Any], code: str, told: str) -> None:
    asked = {"model_spec": {"name": "ranked"}, "input": listed(example(x=[1, 2]))} if fields else {}
    async with serving(RANKED) as client:
        _, found, details = await client.refusal(method, **asked | fields)
    assert (found, told in details) == (code, True), details


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"number": [1.5]}, "input.datatype", "numbers, expected INT32"),
        ({"number": [2**31]}, "input.value", "2147483648"),
        ({"number": [b"1"]}, "input.datatype", "strings"),
        ({"flag": [2]}, "input.datatype", "BOOL"),
        ({"flag": [1.0]}, "input.datatype", "BOOL"),
        ({"text": [1]}, "input.datatype", "integers, expected BYTES"),
        ({"text": [0.5]}, "input.datatype", "numbers, expected BYTES"),
        ({"wide": [2**53 + 1, 1, 1, 1]}, "input.value", "9007199254740993"),
    ],
)
async def test_a_feature_of_another_kind_is_told(change: dict[str, Any], code: str, told: str) -> None:
    good: dict[str, Any] = {"number": [7], "wide": [1, 2, 3, 4], "flag": [1], "text": [b"a"]}
    asked = listed(example(**good | change), context=example(rate=[1]))
    async with serving(EVERY) as client:
        _, found, details = await client.refusal("Regress", model_spec={"name": "every"}, input=asked)
    assert (found, told in details) == (code, True), details


@pytest.mark.parametrize("context", [None, example(), example(rate=[1, 2]), example(rate=[])])
async def test_one_value_for_all_examples_is_the_context_s(context: Any) -> None:
    row = example(number=[7], wide=[1, 2, 3, 4], flag=[1], text=[b"a"], rate=[1])
    async with serving(EVERY) as client:
        _, code, details = await client.refusal(
            "Regress", model_spec={"name": "every"}, input=listed(row, context=context)
        )
    assert code in ("input.missing", "input.shape")
    assert "'rate'" in details


async def test_a_short_context_is_not_made_into_a_long_tensor() -> None:
    many = [example() for _ in range(20_000)]
    for served, context in ((RANKED, example(x=[0.5] * 2000)), (PARSER, example(x=[b"a" * 10_000]))):
        async with serving(served) as client:
            status, code, details = await client.refusal(
                "Regress", model_spec={"name": served.name}, input=listed(*many, context=context)
            )
        assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "request.too_large")
        assert "20000 examples" in details


def task(method: str = CLASSIFY, **model_spec: Any) -> Any:
    return {"model_spec": {"name": "ranked"} | model_spec, "method_name": method}


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ([], "request.malformed"),
        ([task(name="")], "request.malformed"),
        ([task(), task(REGRESS, name="half")], "request.malformed"),
        ([task(), task(REGRESS, version={"value": 1})], "request.malformed"),
        ([task(), task()], "request.malformed"),
        ([task("tensorflow/serving/predict")], "request.malformed"),
        ([task("")], "request.malformed"),
        ([task(signature_name=str(number)) for number in range(100)], "request.malformed"),
        ([task(), task(REGRESS, signature_name="other")], "model.signature_unknown"),
        ([task(name="nobody")], "model.unknown"),
    ],
)
async def test_tasks_that_do_not_go_together_are_refused(tasks: list[Any], code: str) -> None:
    async with serving(RANKED) as client:
        _, found, details = await client.refusal("MultiInference", tasks=tasks, input=listed(example(x=[1, 2])))
    assert found == code, details


async def test_a_label_leads_to_its_version() -> None:
    models = [FakeServed("half", number, HALVE, halve) for number in (1, 2)]
    async with serving(*models) as client:
        client.service.fleet.labels["stable"] = 1
        asked = {"name": "half", "version_label": "stable"}
        told = await client.ask("Classify", model_spec=asked, input=listed(example(x=[1, 2])))
        assert told.model_spec.version.value == 1
        told = await client.ask("GetModelMetadata", model_spec=asked, metadata_field=["signature_def"])
        assert told.model_spec.version.value == 1
        for model_spec, versions in (({}, [2, 1]), (asked, [1]), ({"version": {"value": 2}}, [2])):
            told = await client.ask("GetModelStatus", model_spec={"name": "half"} | model_spec)
            assert [each.version for each in told.model_version_status] == versions
        found = await client.refusal("GetModelStatus", model_spec={"name": "half", "version": {"value": 7}})
        assert found[:2] == (grpc.StatusCode.NOT_FOUND, "model.version_unknown")


def config(**models: dict[str, Any]) -> Any:
    listing = [{"name": name, "base_path": f"/models/{name}"} | told for name, told in models.items()]
    return {"model_config_list": {"config": listing}}


async def test_a_reload_serves_what_the_list_names_and_nothing_else() -> None:
    async with serving(*(FakeServed(name, 1, HALVE, halve) for name in ("a", "b", "c"))) as client:
        told = await client.ask("HandleReloadConfigRequest", ADMIN_KEY, config=config(a={}, c={}))
        assert (told.status.error_code, told.HasField("status")) == (0, True)
        assert [each.name for each in client.service.fleet.replicas()] == ["a", "c"]
        await client.ask("HandleReloadConfigRequest", ADMIN_KEY, config={"model_config_list": {}})
        assert client.service.fleet.replicas() == []


async def test_a_reload_hands_on_all_that_is_told_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ModelEntry] = []

    async def reload(entries: list[ModelEntry]) -> None:
        given.extend(entries)

    async with serving() as client:
        monkeypatch.setattr(client.service.models, "reload", reload)
        listing = config(
            a={"model_platform": "tensorflow"},
            b={"model_version_policy": {"latest": {"num_versions": 3}}, "version_labels": {"stable": 1, "canary": 2}},
            c={"model_version_policy": {"all": {}}},
            d={"model_version_policy": {"specific": {"versions": [4, 2]}}},
            e={"model_version_policy": {"latest": {}}},
        )
        await client.ask("HandleReloadConfigRequest", ADMIN_KEY, config=listing)
    policies = (
        None,
        VersionPolicy(latest=3),
        VersionPolicy(all_versions=True),
        VersionPolicy(specific=(2, 4)),
        VersionPolicy(),
    )
    assert given == [
        ModelEntry(name, Path("/models") / name, policy, {"stable": 1, "canary": 2} if name == "b" else {})
        for name, policy in zip("abcde", policies, strict=True)
    ]


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ({}, "request.malformed", "empty"),
        ({"custom_model_config": {"type_url": "x/y"}}, "request.malformed", "custom_model_config"),
        (config(**{"": {}}), "setting.invalid", "no name"),
        (config(a={"base_path": ""}), "setting.invalid", "absolute path"),
        (config(a={"base_path": "models/a"}), "setting.invalid", "'models/a'"),
        (config(a={"base_path": "/a\0b"}), "setting.invalid", "absolute"),
        (config(a={"model_version_policy": {"specific": {}}}), "setting.invalid", "specific versions []"),
        (config(a={"model_version_policy": {"specific": {"versions": [-1]}}}), "setting.invalid", "-1"),
        (config(a={"model_version_policy": {"latest": {"num_versions": 5000}}}), "setting.invalid", "5000"),
        ({"model_config_list": {"config": [{"name": "a", "base_path": "/a"}] * 2}}, "setting.invalid", "twice"),
        (config(nobody={}), "model.unknown", "nobody"),
    ],
)
async def test_a_reload_that_is_told_badly_changes_nothing(told: Any, code: str, words: str) -> None:
    async with serving() as client:
        _, found, details = await client.refusal("HandleReloadConfigRequest", ADMIN_KEY, config=told)
        assert [each.name for each in client.service.fleet.replicas()] == ["half"]
    assert (found, words in details) == (code, True), details


async def test_a_reload_wants_an_admin_key_and_a_service_that_can() -> None:
    async with serving() as client:
        found = await client.refusal("HandleReloadConfigRequest", KEY, config=config(half={}))
        assert found[:2] == (grpc.StatusCode.PERMISSION_DENIED, "key.forbidden")
        client.service.models = None  # type: ignore[assignment]
        found = await client.refusal("HandleReloadConfigRequest", ADMIN_KEY, config=config(half={}))
        assert found[:2] == (grpc.StatusCode.UNIMPLEMENTED, "request.route")
