"""Models of tensors that a second, real Tidemill answers for, by V2 and by TensorFlow Serving's REST."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import Server
from tidemill.core.errors import RefusedByEngine, RefusedModel, UpstreamFailed
from tidemill.core.package import ModelConfig, ModelPackage, Remote
from tidemill.core.package import Upstream as Wish
from tidemill.core.request import InferenceRequest, Piece, Predict
from tidemill.core.settings import Settings
from tidemill.core.tensor import DTYPES, Signature, Tensors, TensorSpec
from tidemill.engine import remote
from tidemill.engine.remote import tfs, v2
from tidemill.engine.remote.model import RemoteModel
from upstreams import Upstream, ok, reply, upstream

pytestmark = pytest.mark.slow
WAYS: dict[str, dict[str, Any]] = {
    "v2": {"protocol": "v2"},
    "v2-json": {"protocol": "v2", "binary": False},
    "tfserving": {"protocol": "tfserving"},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


@asynccontextmanager
async def model(url: str, name: str, config: ModelConfig = ModelConfig(), **wish: Any) -> AsyncIterator[RemoteModel]:  # noqa: B008 - frozen
    wished = Remote(**{"upstream": (Wish(url),), "health_s": 0.0, **wish})
    config = ModelConfig(remote=wished, inputs=config.inputs, outputs=config.outputs)
    made = await remote.load(ModelPackage(name, 1, Path(), "remote", 0, config), Settings())
    try:
        yield made
    finally:
        await made.close()


async def ask(model: RemoteModel, inputs: Tensors, *outputs: str) -> Piece:
    request = InferenceRequest("m", 1, Predict(inputs, outputs), "r", "c", time.monotonic() + 20)
    async with model.run(request) as pieces:
        (piece,) = [piece async for piece in pieces]
    return piece


def values(datatype: str) -> np.ndarray[Any, Any]:
    if datatype == "BYTES":
        array = np.empty((2, 2), object)
        array[:] = [[b"tide", "größte".encode()], [b"", b"mill\x00"]]
        return array
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    dtype = DTYPES[datatype]
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.array([[info.min, info.max], [0, 1]], dtype)
    return np.array([[0.5, -1.25], [3, 1024]], dtype)


@pytest.mark.parametrize("datatype", DTYPES)
async def test_every_datatype_comes_back_as_it_went(server: Server, way: dict[str, Any], datatype: str) -> None:
    async with model(server.url, f"echo-{datatype.lower()}", **way) as echo:
        assert echo.signature.inputs == (TensorSpec("x", datatype, (-1, -1)),)
        sent = values(datatype)
        piece = await ask(echo, {"x": sent})
        (found,) = piece.tensors.values()
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        assert np.array_equal(found, sent)
        assert piece.usage is not None
        assert (piece.usage.calls, piece.usage.rows) == (1, 2)


async def test_outputs_are_those_that_were_wanted(server: Server, way: dict[str, Any]) -> None:
    async with model(server.url, "two", **way) as two:
        inputs = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32), "count": np.array([[1], [2]])}
        assert {name: each.tolist() for name, each in (await ask(two, inputs)).tensors.items()} == {
            "sum": [[2.0] * 3] * 2,
            "twice": [[2], [4]],
        }
        assert list((await ask(two, inputs, "twice")).tensors) == ["twice"]


async def test_numbers_that_are_none_survive(server: Server, way: dict[str, Any]) -> None:
    async with model(server.url, "echo-fp32", **way) as echo:
        sent = np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32)
        (found,) = (await ask(echo, {"x": sent})).tensors.values()
        assert np.array_equal(found, sent, equal_nan=True)


async def test_refusal_of_the_upstream_is_the_callers(server: Server, way: dict[str, Any]) -> None:
    async with model(server.url, "poison", **way) as poison:
        with pytest.raises(RefusedByEngine, match="upstream 1 of model 'poison' refused"):
            await ask(poison, {"x": np.array([99])})


async def test_name_there_may_be_another_one(server: Server, way: dict[str, Any]) -> None:
    async with model(server.url, "mine", **way, model="sum") as summed:
        (found,) = (await ask(summed, {"x": np.ones((1, 4), np.float32)})).tensors.values()
        assert found.tolist() == [[4.0]]


async def test_model_that_the_upstream_does_not_know_is_refused_while_loading(
    server: Server,
    way: dict[str, Any],
) -> None:
    with pytest.raises(RefusedModel, match="does not know the model"):
        async with model(server.url, "nothing", **way):
            pass


async def test_declared_signature_needs_no_upstream_to_load(way: dict[str, Any]) -> None:
    specs = (TensorSpec("x", "FP32", (-1, 2)),)
    async with model("http://127.0.0.1:1", "half", ModelConfig(inputs=specs, outputs=specs), **way) as half:
        assert half.signature.inputs == specs
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            await ask(half, {"x": np.zeros((1, 2), np.float32)})


SPECS = (TensorSpec("y", "FP32", (-1,)),)
SIGNATURE = Signature(SPECS, SPECS)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]},
        {"outputs": [{"name": "y", "datatype": "X", "shape": [1], "data": [1]}]},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 99}}]},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10**9], "data": [1]}]},
        {"outputs": 7},
    ],
)
async def test_answer_that_is_no_v2_is_the_upstreams_failure(told: Any) -> None:
    await fails(told, lambda body: v2.answer(body, None), "v2")


@pytest.mark.parametrize("told", [{}, {"outputs": "x"}, {"outputs": [[1], [2, 3]]}, {"outputs": {"z": [1]}}, [1]])
async def test_answer_that_is_not_tensorflow_servings_is_the_upstreams_failure(told: Any) -> None:
    await fails(told, lambda body: tfs.answer(body, SIGNATURE, ()), "tfserving")


async def fails(told: Any, read: Callable[[bytes], Tensors], protocol: str) -> None:
    body = ok(told).partition(b"\r\n\r\n")[2]
    with pytest.raises(UpstreamFailed):
        read(body)
    async with upstream() as broken:
        broken.says = ok(told)
        declared = ModelConfig(inputs=SPECS, outputs=SPECS)
        async with model(broken.url, "m", declared, protocol=protocol, tries_max=1) as asked:
            with pytest.raises(UpstreamFailed):
                await ask(asked, {"x": np.zeros(1, np.float32)})


async def test_strings_that_are_cut_off_are_the_upstreams_failure() -> None:
    head = b'{"outputs":[{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}'
    with pytest.raises(UpstreamFailed):
        v2.answer(head + b"\x09\0\0\0x", str(len(head)))


async def test_broken_upstream_is_passed_over() -> None:
    one: Upstream
    async with upstream() as one, upstream() as two:
        one.says = reply(200, b"\xff")
        two.says = ok({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]})
        wish = {"protocol": "v2", "upstream": (Wish(one.url), Wish(two.url))}
        async with model("", "m", ModelConfig(inputs=SPECS, outputs=SPECS), **wish) as asked:
            for _ in range(4):
                assert (await ask(asked, {"x": np.zeros(1, np.float32)})).tensors["y"].tolist() == [0.5]
        assert (one.asked, two.asked) == (2, 4)
