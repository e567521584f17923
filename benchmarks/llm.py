"""What asking a language model through its child process costs: SmolLM2, 1, 8 and 32 in flight, against the pipeline.

Claim: tokens a second through the engine `generate` are at least 0.95 of those of openvino-genai's own `generate()` in
one process, prompts of about 128 tokens, 64 new. Both have the same threads and cache; they take turns in one run, and
each pair of turns gives one ratio, of which the median is told.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from typing import Any

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import numpy as np
import openvino
import openvino_genai

from tidemill.core.generation import Generate, Sampling, Tokenise
from tidemill.core.package import ModelPackage
from tidemill.core.places import cache_dir
from tidemill.core.request import InferenceRequest
from tidemill.core.settings import Settings
from tidemill.engine.generate import load
from tidemill.engine.generate.generator import ChildGenerator
from tidemill.engine.generate.limits import BLOCK_TOKENS
from tidemill.kit.install import install

RATIO_MIN = 0.95
IN_FLIGHT = (1, 8, 32)
WORDS = (
    "The mill by the river turned all day and the miller counted sacks of flour while the water fell over the wheel. "
)
SECONDS_MAX = 600.0


def prompt(number: int, round_: int) -> str:
    """Each begins differently, so that none is read from the cache."""
    return f"{round_}.{number}: " + WORDS * 5


class Bare:
    """The pipeline in this process, asked for whole answers: `generate()` lets go of the interpreter."""

    def __init__(self, path: str, threads: int, blocks: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = blocks
        scheduler.enable_prefix_caching = True
        scheduler.max_num_seqs = max(IN_FLIGHT)
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            path, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, "KV_CACHE_PRECISION": "u8"}
        )

    def tokens_per_s(self, prompts: list[tuple[int, ...]], new: int) -> float:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = new, True
        inputs = [openvino.Tensor(np.array([tokens], np.int64)) for tokens in prompts]
        began = time.perf_counter()
        self._pipeline.generate(inputs, [config] * len(inputs))
        return new * len(inputs) / (time.perf_counter() - began)


async def ours_per_s(model: ChildGenerator, prompts: list[tuple[int, ...]], new: int) -> float:
    sampling = Sampling(max_tokens=new, temperature=0.0, ignore_eos=True)

    async def one(tokens: tuple[int, ...]) -> int:
        async with model.run(asked(Generate(tokens=tokens, sampling=sampling))) as pieces:
            return sum([len(delta.tokens) async for piece in pieces for delta in piece.deltas])

    began = time.perf_counter()
    drawn = await asyncio.gather(*(one(tokens) for tokens in prompts))
    return sum(drawn) / (time.perf_counter() - began)


def asked(work: Any) -> InferenceRequest:
    return InferenceRequest("smollm2", 1, work, "r", "c", time.monotonic() + SECONDS_MAX)


async def tokenised(model: ChildGenerator, text: str) -> tuple[int, ...]:
    async with model.run(asked(Tokenise(text=text))) as pieces:
        piece = await anext(pieces)
        return tuple(piece.tensors["tokens"].tolist())


async def measure(flags: argparse.Namespace) -> dict[int, float]:
    (home,) = install(["smollm2"], cache_dir() / "models-of-benchmarks")
    path = home / "1" / "model.gguf"
    # Not niced: the bare pipeline is not, and whatever else runs here would take from the one and not from the other.
    settings = Settings(kv_cache_bytes=512 * 2**20, threads=flags.threads, generate_nice=0)
    model = await load(ModelPackage("smollm2", 1, path, "gguf", 0), settings)
    assert model.child.ready is not None
    bare = Bare(str(path), flags.threads, model.child.ready.kv_tokens // BLOCK_TOKENS)
    ratios: dict[int, list[float]] = {count: [] for count in IN_FLIGHT}
    try:
        for round_ in range(flags.rounds + 1):  # the first is for warming up
            for count in IN_FLIGHT:
                prompts = [await tokenised(model, prompt(number, round_ * 100 + count)) for number in range(count)]
                ours = await ours_per_s(model, prompts, flags.tokens)
                alone = await asyncio.to_thread(bare.tokens_per_s, prompts, flags.tokens)
                print(f"{count:3} in flight: {ours:6.1f} tokens/s, the bare pipeline {alone:6.1f}, {ours / alone:.3f}")
                if round_:
                    ratios[count].append(ours / alone)
    finally:
        await model.close()
    return {count: statistics.median(each) for count, each in ratios.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    ratios = asyncio.run(measure(parser.parse_args()))
    for count, ratio in ratios.items():
        print(f"{count:3} in flight: {ratio:.3f} of the bare pipeline, at least {RATIO_MIN} is claimed")
    return int(min(ratios.values()) < RATIO_MIN)


if __name__ == "__main__":
    sys.exit(main())
