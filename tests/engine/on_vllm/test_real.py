"""SmolLM2 on vLLM: what it alone can tell, and what is left when it is cut, killed, provoked. By `make test-vllm`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

import on_vllm_models
from serving import over
from tidemill.core.errors import EngineFailed, ModelNotReady, RefusedModel, TidemillError, WrongValue
from tidemill.core.generation import Constraint, Delta, Generate, Sampling
from tidemill.core.package import ModelConfig, ModelPackage
from tidemill.core.request import InferenceRequest, Usage
from tidemill.core.settings import Settings
from tidemill.engine.generate.generator import ChildGenerator
from tidemill.engine.on_vllm import load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

BACK_S_MAX = 240.0
"""Ten on a machine that does nothing else are forty here: vLLM's libraries are large."""
BLOCK_TOKENS = 128
PROMPTS = [f"The number {each} is" for each in range(8)]
OPTIONS = {"enforce-eager": True, "dtype": "float32"}


def package(folder: Path | None = None, **options: Any) -> ModelPackage:
    config = ModelConfig(vllm={**OPTIONS, **options})
    return ModelPackage("smollm2", 1, folder or on_vllm_models.smollm2(), "huggingface", 0, config)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def model() -> AsyncIterator[ChildGenerator]:
    settings = Settings(kv_cache_bytes=256 * 2**20, generate_running_max=16, queue_max=100, constraint_ms_max=10_000)
    made = await load(package(), settings)
    yield made
    await made.close()


def asked(work: Any, seconds: float = 120.0) -> InferenceRequest:
    return InferenceRequest("smollm2", 1, work, "r", "c", time.monotonic() + seconds)


def greedy(prompt: str, tokens: int = 12, **more: Any) -> Generate:
    return Generate(prompt=prompt, sampling=Sampling(max_tokens=tokens, temperature=0.0, **more))


async def told(model: ChildGenerator, work: Generate) -> tuple[list[Delta], Usage]:
    deltas, usage = [], None
    async with model.run(asked(work)) as pieces:
        async for piece in pieces:
            deltas += piece.deltas
            usage = piece.usage or usage
    assert usage is not None
    return deltas, usage


async def say(model: ChildGenerator, work: Generate) -> str:
    return "".join(delta.text for delta in (await told(model, work))[0])


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def below(pid: int | None) -> list[psutil.Process]:
    """The processes that live below `pid`."""
    return psutil.Process(pid).children(recursive=True)


def engine_of(model: ChildGenerator) -> psutil.Process:
    return next(each for each in below(model.child.pid) if "EngineCore" in each.name())


def gone(processes: list[psutil.Process]) -> bool:
    return all(map(over, processes))


async def back(model: ChildGenerator) -> float:
    """Until it answers again; the seconds that took."""
    began = time.monotonic()
    while True:
        try:
            assert await say(model, greedy("The mill", 4))
            return time.monotonic() - began
        except (ModelNotReady, EngineFailed):
            assert time.monotonic() - began < BACK_S_MAX
            await asyncio.sleep(0.2)


async def test_it_knows_the_capital_of_france(model: ChildGenerator) -> None:
    chat = ({"role": "user", "content": "What is the capital of France?"},)
    work = Generate(messages=chat, sampling=Sampling(max_tokens=24, temperature=0.0))
    deltas, usage = await told(model, work)
    assert "Paris" in "".join(delta.text for delta in deltas)
    assert deltas[-1].finish == "stop"
    assert usage.completion_tokens < 24


async def test_likeliest_others_are_told_in_their_order(model: ChildGenerator) -> None:
    deltas, _ = await told(model, greedy("The capital of France is", 6, logprobs=4, ignore_eos=True))
    tokens = [token for delta in deltas for token in delta.tokens]
    places = [place for delta in deltas for place in delta.top]
    chosen = [value for delta in deltas for value in delta.logprobs]
    assert len(tokens) == len(places) == len(chosen) == 6
    for token, value, place in zip(tokens, chosen, places, strict=True):
        assert len(place) == 4
        assert [each[2] for each in place] == sorted((each[2] for each in place), reverse=True)
        assert place[0][0] == token  # greedy
        assert place[0][2] == pytest.approx(value)
    assert "".join(text for delta in deltas for text in delta.spelled) == "".join(delta.text for delta in deltas)


async def test_bias_makes_a_token_certain_and_another_impossible(model: ChildGenerator) -> None:
    (first, *_), _ = await told(model, greedy("The capital of France is", 1))
    (likeliest,) = first.tokens
    (banned, *_), _ = await told(model, greedy("The capital of France is", 1, logit_bias=((likeliest, -100.0),)))
    assert banned.tokens != (likeliest,)
    (forced, *_), _ = await told(model, greedy("The capital of France is", 1, logit_bias=((42, 100.0),)))
    assert forced.tokens == (42,)


async def test_all_but_one_token_is_cut_off_by_top_k_top_p_and_min_p(model: ChildGenerator) -> None:
    usual = await say(model, greedy("The mill by the river", 12))
    for cut in ({"top_k": 1}, {"top_p": 0.001}, {"min_p": 0.999}):
        drawn = Sampling(max_tokens=12, temperature=1.0, **cut)  # type: ignore[arg-type]
        assert await say(model, Generate(prompt="The mill by the river", sampling=drawn)) == usual, cut


async def test_what_was_read_before_is_told_as_cached(model: ChildGenerator) -> None:
    prompt = "The tide comes in and the tide goes out. " * 40
    _, first = await told(model, greedy(prompt, 2))
    _, second = await told(model, greedy(prompt, 2))
    assert first.cached_tokens == 0
    assert second.cached_tokens >= BLOCK_TOKENS
    assert second.cached_tokens < second.prompt_tokens == first.prompt_tokens


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        (Constraint("regex", "(red|green|blue){2}"), "^(red|green|blue){2}$"),
        (Constraint("grammar", 'root ::= "yes" | "no"'), "^(yes|no)$"),
        (Constraint("json_schema", json.dumps({"enum": ["high", "low"]})), '^"(high|low)"$'),
    ],
    ids=["regex", "grammar", "schema"],
)
async def test_answers_fit_what_they_must(model: ChildGenerator, constraint: Constraint, fits: str) -> None:
    work = Generate(prompt="Answer:", sampling=Sampling(max_tokens=40, seed=5), constraint=constraint)
    assert re.search(fits, await say(model, work))


async def test_json_mode_gives_an_object(model: ChildGenerator) -> None:
    work = Generate(
        messages=({"role": "user", "content": "Give me a JSON object with one key, name."},),
        sampling=Sampling(max_tokens=200, temperature=0.0),
        constraint=Constraint("json"),
    )
    deltas, _ = await told(model, work)
    if deltas[-1].finish == "stop":
        assert isinstance(json.loads("".join(delta.text for delta in deltas)), dict)
    else:
        assert "".join(delta.text for delta in deltas).lstrip().startswith("{")


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("regex", "(unclosed"),
        Constraint("grammar", "root ::= nothing-of-this-name"),
        Constraint("json_schema", '{"type": "no such type"}'),
        Constraint("regex", "(" * 5000 + "a" + ")*" * 5000),
    ],
    ids=["regex", "grammar", "schema", "hostile"],
)
async def test_what_cannot_be_compiled_is_refused_to_its_sender_alone(
    model: ChildGenerator, constraint: Constraint
) -> None:
    restarts = model.child.restarts
    other = asyncio.create_task(say(model, greedy("Once upon a time", 40, ignore_eos=True)))
    with pytest.raises(WrongValue, match="must fit"):
        await say(model, Generate(prompt="x", sampling=Sampling(max_tokens=8), constraint=constraint))
    assert await other
    assert model.child.restarts == restarts


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(logprobs=50, max_tokens=2), "logprobs"),
        (Sampling(temperature=3.0, max_tokens=2), "temperature"),
        (Sampling(logit_bias=((10**6, 1.0),), max_tokens=2), "logit_bias"),
        (Sampling(temperature=float("nan"), max_tokens=2), "temperature"),
    ],
    ids=["logprobs", "temperature", "bias", "nan"],
)
async def test_what_vllm_refuses_names_its_parameter(model: ChildGenerator, sampling: Sampling, param: str) -> None:
    with pytest.raises(WrongValue) as refused:
        await say(model, Generate(prompt="x", sampling=sampling))
    assert refused.value.param == param


async def test_after_many_streams_half_of_them_cut_nothing_is_held(model: ChildGenerator) -> None:
    before = [await say(model, greedy(prompt)) for prompt in PROMPTS]
    dice = random.Random(7)  # noqa: S311 - no secret

    async def one(number: int) -> None:
        work = greedy(PROMPTS[number % len(PROMPTS)], dice.randint(4, 12), ignore_eos=True)
        cut = dice.randint(0, 6) if number % 2 else None
        async with model.run(asked(work)) as pieces:
            if cut == 0:
                return
            seen = 0
            async for _ in pieces:
                seen += 1
                if seen == cut:
                    return

    at_once = asyncio.Semaphore(24)

    async def in_turn(number: int) -> None:
        async with at_once:
            await one(number)

    await asyncio.gather(*(in_turn(number) for number in range(200)))
    await until(lambda: not model.under_way and not model.gauges.running)
    # The engine tells how busy it is as it steps: with one answer under way, it has one.
    async with model.run(asked(greedy("The mill", 30, ignore_eos=True))) as pieces:
        for _ in range(4):
            await anext(pieces)
        assert (model.gauges.running, model.gauges.waiting) == (1, 0)
        assert model.gauges.kv_share < 0.05
    assert [await say(model, greedy(prompt)) for prompt in PROMPTS] == before


async def test_kill_of_the_child_leaves_nothing_and_is_counted(model: ChildGenerator) -> None:
    restarts = model.child.restarts
    long = greedy("Once upon a time", 400, ignore_eos=True)
    tasks = [asyncio.create_task(say(model, long)) for _ in range(8)]
    await until(lambda: model.gauges.running > 0)
    processes = [each for each in below(model.child.pid) if "EngineCore" in each.name()]
    assert processes
    assert model.child.pid is not None
    os.kill(model.child.pid, signal.SIGKILL)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {EngineFailed}
    await until(lambda: gone(processes))
    with pytest.raises(ModelNotReady) as refused:
        await say(model, greedy("The mill"))
    assert refused.value.retry_after_s
    print(f"serves again after {await back(model):.1f} s")
    assert model.busy().restarts == restarts + 1


async def test_death_of_vllms_engine_is_clear_and_heals(model: ChildGenerator) -> None:
    restarts = model.child.restarts
    task = asyncio.create_task(say(model, greedy("Once upon a time", 400, ignore_eos=True)))
    await until(lambda: model.gauges.running > 0)
    engine_of(model).kill()
    killed_at = time.monotonic()
    with pytest.raises(EngineFailed, match="has ended"):
        await task
    print(f"told after {time.monotonic() - killed_at:.1f} s; serves again after {await back(model):.1f} s more")
    assert model.child.restarts == restarts + 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_model_length": 100}, "like it are max-model-len"),
        ({"dtype": "float12"}, "float12"),
    ],
    ids=["unknown", "value"],
)
async def test_options_that_vllm_does_not_take_refuse_the_model(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusedModel, match=why):
        await load(package(**options), Settings(kv_cache_bytes=64 * 2**20))


async def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(on_vllm_models.smollm2(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(TidemillError, match=r"vLLM cannot load .*broken"):
        await load(package(folder), Settings(kv_cache_bytes=64 * 2**20))
