"""Sentence embeddings by a real encoder: MiniLM of the kit, through the fleet, on both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from tidemill.core.errors import DeadlineExceeded, NotOffered, PromptTooLong, WrongValue
from tidemill.core.generation import Embed, Generate, Tokenise
from tidemill.core.request import InferenceRequest, Piece, Predict
from tidemill.core.tensor import Array
from tidemill.deploy.local import FleetPolicy, LocalFleet, State
from tidemill.deploy.steps import StepPolicy
from tidemill.kit.datasets import data
from tidemill.kit.install import install
from tidemill.repository import layout

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

POLICY = FleetPolicy("auto", 1, 1, 16, 100, 0.0, 7, steps=StepPolicy(texts_max=300))
TEXTS = (
    "A mill turns.",
    "",
    "The river meets the sea where the great mill stands, and turns, and turns.",
    "¿Qué? 潮水",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["minilm"], into)
    return into


@pytest_asyncio.fixture(params=["onnx", "openvino"], loop_scope="module", scope="module")
async def fleet(request: pytest.FixtureRequest, models: Path) -> AsyncIterator[LocalFleet]:
    made = LocalFleet(msgspec.structs.replace(POLICY, engine=request.param))
    package = layout.package("minilm", 1, models / "minilm/1")
    replica = await made.load(package)
    assert replica.state is State.AVAILABLE, replica.reason
    # The same model, asked for the states of its tokens, and told to refuse what is too long.
    wish = msgspec.structs.replace(package.config.embed, output="last_hidden_state", truncate=False)
    config = msgspec.structs.replace(package.config, embed=wish)
    await made.load(msgspec.structs.replace(package, name="states", config=config))
    yield made
    await made.close()


def asked(work: Predict | Embed | Generate | Tokenise, model: str = "minilm", seconds: float = 60) -> InferenceRequest:
    return InferenceRequest(model, 1, work, "r", "c", time.monotonic() + seconds)


async def said(fleet: LocalFleet, request: InferenceRequest) -> Piece:
    async with fleet.run(request) as pieces:
        (piece,) = [piece async for piece in pieces]
    return piece


async def embedded(fleet: LocalFleet, *texts: str, model: str = "minilm", dimensions: int = 0) -> Array:
    return (await said(fleet, asked(Embed(texts, dimensions=dimensions), model))).tensors["embedding"]


async def test_news_that_people_find_alike_are_close(fleet: LocalFleet) -> None:
    """The documents and judgements of Lee, Pincombe and Welsh, 2005."""
    texts = data("lee.txt").read_text("utf-8").splitlines()
    vectors = await embedded(fleet, *texts)
    pairs = np.triu_indices(len(texts), 1)
    people = np.load(data("lee_similarities"))[pairs]
    assert len(people) == 1225
    assert np.corrcoef((vectors @ vectors.T)[pairs], people)[0, 1] >= 0.65


async def test_many_texts_are_answered_as_each_alone(fleet: LocalFleet) -> None:
    texts = [*TEXTS, *data("lee_background.txt").read_text("utf-8").splitlines()[:20]]
    together = await embedded(fleet, *texts)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        (alone,) = await embedded(fleet, text)
        assert np.allclose(vector, alone, atol=2e-5)


async def test_pooling_here_is_the_models_own(fleet: LocalFleet) -> None:
    assert np.allclose(await embedded(fleet, *TEXTS), await embedded(fleet, *TEXTS, model="states"), atol=2e-5)


async def test_tokens_stand_for_their_text_and_are_counted(fleet: LocalFleet) -> None:
    tokens = [(await said(fleet, asked(Tokenise(text=text)))).tensors["tokens"] for text in TEXTS]
    by_text = await said(fleet, asked(Embed(TEXTS)))
    by_token = await said(fleet, asked(Embed(tokens=tuple(tuple(each.tolist()) for each in tokens))))
    assert np.allclose(by_text.tensors["embedding"], by_token.tensors["embedding"], atol=2e-5)
    for piece in (by_text, by_token):
        assert piece.usage is not None
        assert (piece.usage.rows, piece.usage.prompt_tokens) == (4, sum(map(len, tokens)))
    (delta,) = (await said(fleet, asked(Tokenise(tokens=tuple(tokens[0].tolist()), special=False)))).deltas
    assert delta.text == "a mill turns."


async def test_fewer_dimensions_are_the_first_of_length_one(fleet: LocalFleet) -> None:
    whole, short = await embedded(fleet, *TEXTS), await embedded(fleet, *TEXTS, dimensions=100)
    assert whole.shape == (4, 384)
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    assert np.allclose(short, whole[:, :100] / np.linalg.norm(whole[:, :100], axis=1, keepdims=True), atol=2e-5)
    with pytest.raises(WrongValue, match="385 dimensions are wanted; the model makes 384"):
        await embedded(fleet, "a", dimensions=385)


async def test_long_text_is_cut_or_refused_as_the_model_says(fleet: LocalFleet) -> None:
    long = "mill " * 1000
    cut = await said(fleet, asked(Embed((long,))))
    assert cut.usage is not None
    assert cut.usage.prompt_tokens == 256
    with pytest.raises(PromptTooLong, match="text 1 has 1002 tokens, the most this model reads is 256"):
        await embedded(fleet, "a", long, model="states")


@pytest.mark.parametrize("count", [0, 301])
async def test_too_many_texts_or_none_are_refused(fleet: LocalFleet, count: int) -> None:
    with pytest.raises(WrongValue, match=f"{count} texts were sent, 1 to 300 are allowed"):
        await embedded(fleet, *["a"] * count)


@pytest.mark.parametrize("work", [Generate(prompt="a"), Tokenise(messages=({"role": "user", "content": "a"},))])
async def test_what_generates_is_refused(fleet: LocalFleet, work: Generate | Tokenise) -> None:
    with pytest.raises(NotOffered, match="'minilm' embeds text"):
        await said(fleet, asked(work))


async def test_tensors_are_answered_as_before(fleet: LocalFleet) -> None:
    assert fleet.find("minilm").embeds
    ones = np.ones((1, 4), np.int64)
    inputs = {"input_ids": ones * 2000, "attention_mask": ones, "token_type_ids": ones * 0}
    piece = await said(fleet, asked(Predict(inputs)))
    assert piece.tensors["sentence_embedding"].shape == (1, 384)
    by_token = await said(fleet, asked(Embed(tokens=((2000,) * 4,))))
    assert np.allclose(piece.tensors["sentence_embedding"], by_token.tensors["embedding"], atol=2e-5)


async def test_deadline_holds_for_all_texts_together(fleet: LocalFleet) -> None:
    texts = tuple(data("lee_background.txt").read_text("utf-8").splitlines())
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await said(fleet, asked(Embed(texts), seconds=0.3))
    assert time.monotonic() - began < 2.0


async def test_who_leaves_stops_the_work_that_has_not_begun(fleet: LocalFleet) -> None:
    replica = fleet.find("minilm")
    texts = tuple(data("lee_background.txt").read_text("utf-8").splitlines())
    before = replica.stats.rows
    task = asyncio.ensure_future(said(fleet, asked(Embed(texts))))
    async with asyncio.timeout(30):
        while replica.stats.rows == before:  # noqa: ASYNC110 - what it looks at knows no events
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert replica.lane is not None
    await replica.lane.drain()
    assert replica.waiting == 0
    assert replica.stats.rows - before < len(texts) / 2
    assert (await embedded(fleet, "a")).shape == (1, 384)


async def test_one_short_text_does_not_wait_for_a_long_list(fleet: LocalFleet) -> None:
    replica = fleet.find("minilm")
    texts = tuple(data("lee_background.txt").read_text("utf-8").splitlines()[:100])
    list_of_many = asyncio.ensure_future(said(fleet, asked(Embed(texts))))
    async with asyncio.timeout(30):
        while not replica.waiting:  # noqa: ASYNC110 - what it looks at knows no events
            await asyncio.sleep(0)
    assert replica.waiting <= 2
    await embedded(fleet, "a")
    assert not list_of_many.done()
    list_of_many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await list_of_many
