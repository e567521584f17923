"""`Generator`: what every language model keeps, whatever runs beneath.

What is true of any model is asked of any: counts, ends and bounds, and that nothing is held; never what it says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio

import exporting
import on_vllm_models
from fake_generator import CONTEXT_TOKENS, FakeGenerator
from fakes import KEY
from speaking import SpeakingServer
from tidemill.core.contracts import Generator
from tidemill.core.errors import DeadlineExceeded, ModelNotReady, NotOffered, PromptTooLong
from tidemill.core.generation import Constraint, Delta, Generate, Sampling, Tokenise
from tidemill.core.package import ModelConfig, ModelPackage, Remote, Upstream
from tidemill.core.places import cache_dir
from tidemill.core.request import InferenceRequest, Piece, Predict, Usage
from tidemill.core.settings import Settings
from tidemill.engine import on_vllm, remote
from tidemill.engine.generate import load
from tidemill.kit.install import install
from vllm_server import vllm_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "The mill by the river turned, and the miller said to his daughter that"
CHAT = ({"role": "system", "content": "You answer briefly."}, {"role": "user", "content": "Name three colours."})
SETTLE_S_MAX = 10.0


class Subject:
    """A generator, how many answers it works on now, and how to build it again."""

    def __init__(
        self, generator: Generator, running: Callable[[], int], again: Callable[[], Any] | None = None
    ) -> None:
        self.generator = generator
        self.running = running
        self.again = again
        self.gives_fewer = False
        """Than were asked for, where the context holds no more: another server's way, who does not refuse it."""


@asynccontextmanager
async def _fake() -> AsyncIterator[Subject]:
    made = FakeGenerator()
    yield Subject(made, lambda: made.running, _fake)
    await made.close()


@asynccontextmanager
async def _generate() -> AsyncIterator[Subject]:
    (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
    package = ModelPackage("smollm2", 1, home / "1" / "model.gguf", "gguf", 0)
    made = await load(package, Settings(kv_cache_bytes=256 * 2**20, export_weights="file"))
    yield Subject(made, lambda: made.under_way + made.gauges.running, _generate)
    await made.close()


@asynccontextmanager
async def _exported() -> AsyncIterator[Subject]:
    """The kit's model again, by way of Hugging Face's folder and OpenVINO's IR."""
    exporting.exported()
    package = ModelPackage("smollm2", 1, exporting.source(), "huggingface", 0)
    made = await load(package, Settings(kv_cache_bytes=256 * 2**20))
    yield Subject(made, lambda: made.under_way + made.gauges.running, _exported)
    await made.close()


@asynccontextmanager
async def _remote() -> AsyncIterator[Subject]:
    """The small true one, behind the door that speaks OpenAI's protocol, over HTTP."""
    with SpeakingServer() as server:
        wish = Remote(
            "openai",
            (Upstream(server.url),),
            "mill",
            "KEY_OF_TESTS",
            context_tokens=CONTEXT_TOKENS,
            extensions=True,
            tokenizes=True,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KEY_OF_TESTS", KEY)
            package = ModelPackage("mill", 1, Path(), "remote", 0, ModelConfig(remote=wish))
            made = await remote.load(package, Settings())
        yield Subject(made, lambda: made.under_way + server.generator.running, _remote)
        await made.close()


@asynccontextmanager
async def _vllm() -> AsyncIterator[Subject]:
    """Through `make test-vllm`, in whose environment vLLM is."""
    config = ModelConfig(vllm={"enforce-eager": True, "dtype": "float32"})
    package = ModelPackage("smollm2", 1, on_vllm_models.smollm2(), "huggingface", 0, config)
    made = await on_vllm.load(package, Settings(kv_cache_bytes=512 * 2**20))
    yield Subject(made, lambda: made.under_way + made.gauges.running, _vllm)
    await made.close()


@asynccontextmanager
async def _remote_vllm() -> AsyncIterator[Subject]:
    """vLLM's own server, as a model of ours."""
    with vllm_server("smollm2", KEY) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEY_OF_TESTS", KEY)
        wish = Remote("openai", (Upstream(url),), "smollm2", "KEY_OF_TESTS", extensions=True, tokenizes=True)
        package = ModelPackage("smollm2", 1, Path(), "remote", 0, ModelConfig(remote=wish))
        made = await remote.load(package, Settings())
        subject = Subject(made, lambda: made.under_way)
        subject.gives_fewer = True
        yield subject
        await made.close()


KINDS: dict[str, Any] = {
    "fake": pytest.param(_fake, id="fake"),
    "remote": pytest.param(_remote, id="remote"),
    "generate": pytest.param(_generate, id="generate", marks=pytest.mark.slow),
    "exported": pytest.param(_exported, id="exported", marks=pytest.mark.slow),
}
if find_spec("vllm") is not None:
    KINDS["vllm"] = pytest.param(_vllm, id="vllm", marks=pytest.mark.slow)
    KINDS["remote-vllm"] = pytest.param(_remote_vllm, id="remote-vllm", marks=pytest.mark.slow)
"""Name -> a context manager that gives a `Subject`; real engines are slow ones."""


@pytest_asyncio.fixture(params=KINDS.values(), loop_scope="module", scope="module")
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with request.param() as made:
        yield made


class Said:
    """A whole answer."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.deltas = [delta for piece in pieces for delta in piece.deltas]
        assert pieces[-1].usage is not None
        assert all(piece.usage is None for piece in pieces[:-1])
        self.usage: Usage = pieces[-1].usage

    def text(self, choice: int = 0) -> str:
        return "".join(delta.text for delta in self.of(choice))

    def of(self, choice: int) -> list[Delta]:
        return [delta for delta in self.deltas if delta.choice == choice]

    def finish(self, choice: int = 0) -> str:
        ends = [delta.finish for delta in self.of(choice) if delta.finish]
        assert len(ends) == 1, ends
        assert self.of(choice)[-1].finish
        return ends[0]


def request(work: Any, seconds: float = 120.0) -> InferenceRequest:
    return InferenceRequest("m", 1, work, "r", "c", time.monotonic() + seconds)


async def say(subject: Subject, work: Any, seconds: float = 120.0) -> Said:
    async with subject.generator.run(request(work, seconds)) as pieces:
        return Said([piece async for piece in pieces])


async def quiet(subject: Subject) -> None:
    until = time.monotonic() + SETTLE_S_MAX
    while subject.running():
        assert time.monotonic() < until, f"{subject.running()} answers are still under way"
        await asyncio.sleep(0.01)


def greedy(**more: Any) -> Sampling:
    return Sampling(**{"temperature": 0.0, "max_tokens": 24, **more})


async def test_what_is_counted_is_what_was_said(subject: Subject) -> None:
    said = await say(subject, Generate(prompt=PROMPT, sampling=greedy(ignore_eos=True)))
    tokens = [token for delta in said.deltas for token in delta.tokens]
    assert said.usage.completion_tokens == 24
    assert len(tokens) in (24, 0)  # what another server drew is not told
    assert said.finish() == "length"
    assert said.text()


async def test_prompt_is_counted_as_it_is_tokenised(subject: Subject) -> None:
    for work, asked in (
        (Generate(prompt=PROMPT, sampling=greedy(max_tokens=1)), Tokenise(text=PROMPT)),
        (Generate(messages=CHAT, sampling=greedy(max_tokens=1)), Tokenise(messages=CHAT)),
    ):
        if work.messages and not subject.generator.speaks.chats:
            continue
        said, told = await say(subject, work), await say(subject, asked)
        tokens = told.pieces[0].tensors["tokens"]
        assert tokens.dtype == np.int64
        assert said.usage.prompt_tokens == tokens.size


async def test_tokens_and_the_text_that_they_stand_for(subject: Subject) -> None:
    text = "Größte 潮水 🌊 of the mill"
    told = await say(subject, Tokenise(text=text, special=False))
    tokens = tuple(told.pieces[0].tensors["tokens"].tolist())
    assert tokens
    back = await say(subject, Tokenise(tokens=tokens))
    assert back.text() == text


async def test_prompt_of_tokens_is_the_prompt_that_they_stand_for(subject: Subject) -> None:
    told = await say(subject, Tokenise(text=PROMPT))
    tokens = tuple(told.pieces[0].tensors["tokens"].tolist())
    await say(subject, Generate(prompt=PROMPT, sampling=greedy()))  # read once, all read it from the cache
    one = await say(subject, Generate(prompt=PROMPT, sampling=greedy()))
    other = await say(subject, Generate(tokens=tokens, sampling=greedy()))
    assert one.text() == other.text()
    assert one.usage.prompt_tokens == other.usage.prompt_tokens


async def test_likeliest_words_are_the_same_again(subject: Subject) -> None:
    """From the second time on: the first reads the whole prompt at once, the others its end alone, and sums of floats
    in another order may make another word the likeliest."""
    work = Generate(messages=CHAT, sampling=greedy())
    first, *others = [(await say(subject, work)).text() for _ in range(3)]
    assert first
    assert others[0] == others[1]


async def test_a_seed_draws_the_same_again_and_another_seed_need_not(subject: Subject) -> None:
    def work(seed: int) -> Generate:
        return Generate(prompt=PROMPT, sampling=Sampling(max_tokens=24, temperature=1.5, seed=seed, ignore_eos=True))

    texts = [(await say(subject, work(seed))).text() for seed in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


async def test_answer_ends_before_a_stop_string_wherever_its_parts_fall(subject: Subject) -> None:
    whole = (await say(subject, Generate(prompt=PROMPT, sampling=greedy(max_tokens=40)))).text()
    for start, size in ((len(whole) // 2, 1), (len(whole) // 3, 5), (len(whole) // 4, 12)):
        stop = whole[start : start + size]
        said = await say(
            subject, Generate(prompt=PROMPT, sampling=greedy(max_tokens=40, stop=("never said, ever", stop)))
        )
        assert said.text() == whole[: whole.index(stop)]
        assert said.finish() == "stop"
        assert all(stop not in delta.text for delta in said.deltas)


async def test_what_might_have_become_a_stop_string_is_told_when_it_did_not(subject: Subject) -> None:
    whole = (await say(subject, Generate(prompt=PROMPT, sampling=greedy()))).text()
    stops = (whole[:10] + "\0", whole[-5:] + "\0")
    said = await say(subject, Generate(prompt=PROMPT, sampling=greedy(stop=stops)))
    assert said.text() == whole


async def test_several_choices_each_end_once_and_are_counted_together(subject: Subject) -> None:
    sampling = Sampling(max_tokens=8, temperature=1.0, ignore_eos=True)
    said = await say(subject, Generate(prompt=PROMPT, choices=3, sampling=sampling))
    assert {delta.choice for delta in said.deltas} == {0, 1, 2}
    assert [said.finish(each) for each in range(3)] == ["length"] * 3
    assert said.usage.completion_tokens == 24
    assert said.usage.prompt_tokens == (await say(subject, Tokenise(text=PROMPT))).usage.prompt_tokens


async def test_an_answer_that_nobody_reads_along_is_the_same(subject: Subject) -> None:
    work = Generate(prompt=PROMPT, sampling=greedy(ignore_eos=True, stop=("\0",)))
    streamed = await say(subject, work)
    whole = await say(subject, msgspec.structs.replace(work, stream=False))
    assert (whole.text(), whole.finish(), whole.usage) == (streamed.text(), streamed.finish(), streamed.usage)
    assert [t for delta in whole.deltas for t in delta.tokens] == [t for delta in streamed.deltas for t in delta.tokens]
    assert len(whole.pieces) <= len(streamed.pieces)


async def test_characters_are_never_split(subject: Subject) -> None:
    said = await say(subject, Generate(prompt="🌊🌊🌊🌊 größte 潮水🌊", sampling=greedy(max_tokens=40)))
    for delta in said.deltas[:-1]:
        assert "\ufffd" not in delta.text
        delta.text.encode()


async def test_json_fits_its_schema_or_is_refused(subject: Subject) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"type": "integer"}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    work = Generate(
        messages=({"role": "user", "content": "Describe a dog."},),
        sampling=Sampling(max_tokens=120, temperature=1.0, seed=3),
        constraint=Constraint("json_schema", json.dumps(schema)),
    )
    try:
        said = await say(subject, work)
    except NotOffered:
        return
    assert said.finish() == "stop"
    told = json.loads(said.text())
    assert set(told) == {"name", "legs"}
    assert isinstance(told["legs"], int)


async def test_logprobs_are_told_or_refused_never_made_up(subject: Subject) -> None:
    try:
        said = await say(subject, Generate(prompt=PROMPT, sampling=greedy(logprobs=0)))
    except NotOffered:
        return
    for delta in said.deltas:
        assert len(delta.logprobs) == len(delta.spelled) == len(delta.tokens)
        assert all(each <= 0 for each in delta.logprobs)


async def test_prompt_longer_than_the_context_is_refused_and_never_cut(subject: Subject) -> None:
    long = "tide " * (subject.generator.speaks.context_tokens + 10)
    with pytest.raises(PromptTooLong):
        await say(subject, Generate(prompt=long, sampling=greedy(max_tokens=4)))
    if subject.gives_fewer:
        return
    most = subject.generator.speaks.context_tokens
    with pytest.raises(PromptTooLong):
        await say(subject, Generate(prompt=PROMPT, sampling=greedy(max_tokens=most)))
    await quiet(subject)


async def test_tensors_are_no_work_for_it(subject: Subject) -> None:
    with pytest.raises(NotOffered):
        await say(subject, Predict({}))


async def test_leaving_early_ends_the_work(subject: Subject) -> None:
    sampling = Sampling(max_tokens=300, ignore_eos=True)
    for read in (0, 1, 3):
        async with subject.generator.run(request(Generate(prompt=PROMPT, sampling=sampling))) as pieces:
            for _ in range(read):
                await anext(pieces)
        await quiet(subject)


async def test_a_cancelled_caller_ends_the_work(subject: Subject) -> None:
    """Those that leave had asked for more than can have been said by then."""
    begun = asyncio.Event()

    async def listen(tokens: int) -> int:
        sampling = Sampling(max_tokens=tokens, ignore_eos=True)
        async with subject.generator.run(request(Generate(prompt=PROMPT, sampling=sampling))) as pieces:
            usage = None
            async for piece in pieces:
                begun.set()
                usage = piece.usage
        assert usage is not None
        return usage.completion_tokens

    tasks = [asyncio.create_task(listen(300 if stays else 3000)) for stays in (False, True) * 4]
    tasks[0].cancel()  # before its first step
    await begun.wait()
    for task in tasks[::2]:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends[::2]] == [asyncio.CancelledError] * 4
    assert ends[1::2] == [300] * 4
    await quiet(subject)


async def test_a_deadline_that_passes_ends_it(subject: Subject) -> None:
    with pytest.raises(DeadlineExceeded):
        await say(subject, Generate(prompt=PROMPT, sampling=Sampling(max_tokens=300, ignore_eos=True)), -1.0)
    await quiet(subject)


async def test_many_at_once_are_kept_apart(subject: Subject) -> None:
    works = [Generate(prompt=f"{PROMPT} {n}", sampling=greedy(max_tokens=4 + n, ignore_eos=True)) for n in range(12)]
    answers = await asyncio.gather(*(say(subject, work) for work in works))
    assert [answer.usage.completion_tokens for answer in answers] == [4 + n for n in range(12)]
    await quiet(subject)


async def test_closing_ends_what_runs_with_an_error(subject: Subject) -> None:
    if subject.again is None:
        pytest.skip("it is not built again: that takes long")
    async with subject.again() as other:
        sampling = Sampling(max_tokens=400, ignore_eos=True)
        async with other.generator.run(request(Generate(prompt=PROMPT, sampling=sampling))) as pieces:
            await anext(pieces)
            await other.generator.close()
            with pytest.raises(ModelNotReady):
                async for _ in pieces:
                    pass
