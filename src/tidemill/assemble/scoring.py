"""The perplexity of a language model on a text, without a server; runs in the command line's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from tidemill.assemble.owner import fleet_policy
from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Score, Tokenise
from tidemill.core.package import ModelPackage
from tidemill.core.request import InferenceRequest, Work
from tidemill.core.settings import Settings
from tidemill.core.tensor import Tensors
from tidemill.deploy.replica import Replica
from tidemill.engine.generate.generator import ChildGenerator, load
from tidemill.engine.generate.windows import Window, perplexity, windows

WINDOW_TOKENS = 2048
"""Where nobody says otherwise, and the model's context is no shorter."""

Progress = Callable[[str, int, int], None]
"""(what is being done, tokens done, tokens in all)"""


class Perplexity(msgspec.Struct, frozen=True):
    """`nats` is the mean negative log probability of the `scored` tokens, `error` the standard error of that mean, and
    `perplexity` e to the `nats`."""

    tokens: int
    scored: int
    window: int
    stride: int
    windows: int
    nats: float
    error: float
    perplexity: float
    spent_s: float


def score(
    settings: Settings, package: ModelPackage, text: str, window: int | None, stride: int | None,
    tokens_max: int | None, progress: Progress,
) -> Perplexity:  # fmt: skip
    """Load `package`, read `text` in windows of `window` tokens (None: `WINDOW_TOKENS`), `stride` apart (None: half of
    one), and no more than the first `tokens_max` tokens.

    Raises `RefusedModel`, `NotOffered`, and `WrongValue` for a text of fewer than two tokens, or for windows that
    cannot be laid out.
    """
    engine = Replica(package, fleet_policy(settings)).engine_name
    if engine != "generate":
        raise NotOffered(
            f"{package.name} runs on the engine {engine!r}; texts are scored by language models of `generate` alone"
        )
    return asyncio.run(_score(settings, package, text, window, stride, tokens_max, progress))


async def _score(
    settings: Settings, package: ModelPackage, text: str, window: int | None, stride: int | None,
    tokens_max: int | None, progress: Progress,
) -> Perplexity:  # fmt: skip
    progress(f"loading {package.name}", 0, 0)
    generator = await load(package, settings, scores=True)
    try:
        context = generator.speaks.context_tokens
        size = min(WINDOW_TOKENS, context) if window is None else window
        if size > context:
            raise WrongValue(f"window = {size}: {package.name} holds {context} tokens at once; ask for no more")
        step = size // 2 if stride is None else stride
        tokens = (await _ask(generator, package, settings, Tokenise(text=text)))["tokens"].tolist()[:tokens_max]
        if len(tokens) < 2:
            raise WrongValue(f"the text has {len(tokens)} tokens for this model; at least 2 are needed, one is scored")
        plan = list(windows(len(tokens), size, step))
        started = time.monotonic()
        found: list[Any] = []
        done = 1
        for each in plan:
            progress(f"scoring {package.name}", done, len(tokens))
            found.append(await _window(generator, package, settings, tokens, each))
            done = each.end
        progress(f"scoring {package.name}", done, len(tokens))
        nats = -np.concatenate(found).astype(np.float64)
        mean = float(nats.mean())
        error = float(nats.std(ddof=1) / len(nats) ** 0.5) if len(nats) > 1 else 0.0
        return Perplexity(
            tokens=len(tokens), scored=len(nats), window=size, stride=step, windows=len(plan), nats=mean, error=error,
            perplexity=perplexity(mean), spent_s=time.monotonic() - started,
        )  # fmt: skip
    finally:
        await generator.close()


async def _window(
    generator: ChildGenerator, package: ModelPackage, settings: Settings, tokens: list[int], window: Window
) -> Any:
    told = await _ask(generator, package, settings, Score(tuple(tokens[window.begin : window.end])))
    return told["logprobs"][window.scored - window.begin - 1 :]


async def _ask(generator: ChildGenerator, package: ModelPackage, settings: Settings, work: Work) -> Tensors:
    until = time.monotonic() + settings.words_timeout_ms / 1000
    request = InferenceRequest(package.name, package.version, work, "perplexity", "perplexity", until)
    async with generator.run(request) as pieces:
        return (await anext(pieces)).tensors
