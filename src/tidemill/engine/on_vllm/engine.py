"""vLLM's asynchronous engine, loaded and asked; runs in the child."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import psutil
from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMError
from vllm.inputs import tokens_input
from vllm.platforms import current_platform
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from tidemill.core.errors import EngineFailed, Overloaded, RefusedModel, TidemillError, WrongValue
from tidemill.core.generation import Delta, Generate, Sampling, Speaks
from tidemill.core.request import Usage
from tidemill.engine.generate import ranges
from tidemill.engine.generate.limits import MEMORY_SHARE
from tidemill.engine.generate.messages import Gauges, Opening, Ready
from tidemill.engine.on_vllm import options, sampling, surroundings, telling
from tidemill.engine.on_vllm.text import Text

XGRAMMAR: Final = "xgrammar"
WARM_UP_TOKENS: Final = 2
RETRY_AFTER_S: Final = 1.0
SHUTDOWN_S_MAX: Final = 1.0
SAYS_CHARACTERS: Final = 600


class Engine:
    """Life: built (raises `RefusedModel`), `answer` any number of times, `close` once. Belongs to a loop.

    `stepped` is called after each step of the engine, with how busy it was.
    """

    def __init__(self, opening: Opening, stepped: Callable[[Gauges], None]) -> None:
        if current_platform.is_cpu():
            surroundings.take_threads(opening.threads)
        try:
            arguments = options.arguments(opening.path, opening.options, _defaults(opening))
            arguments.disable_log_stats = True  # but for ours
            self._engine = AsyncLLM.from_engine_args(
                arguments, stat_loggers=[lambda config, index=0: _Steps(config, index, stepped)]
            )
            config = self._engine.vllm_config
            self._context = config.model_config.max_model_len
            self.text = Text(self._engine.get_tokenizer(), config.model_config.get_vocab_size(), opening.template_s_max)
        except RefusedModel:
            raise
        except Exception as error:  # whatever vLLM, torch and transformers raise for a folder that they do not like
            raise RefusedModel(f"vLLM cannot load {opening.path}: {_says(error)}") from error
        self._ours = config.structured_outputs_config.backend == XGRAMMAR
        template = self.text.template
        speaks = Speaks(
            self._context,
            config.model_config.get_vocab_size(),
            chats=template is not None,
            tools=template is not None and template.tools,
        )
        cache = config.cache_config
        self.ready = Ready(
            speaks, (cache.num_gpu_blocks or 0) * cache.block_size, cache.kv_cache_memory_bytes or opening.kv_bytes
        )

    @property
    def dead(self) -> bool:
        """Whether a process of vLLM's has ended; then nothing may be asked of it any more."""
        return bool(self._engine.errored)

    async def warm_up(self) -> None:
        """The first step compiles, for as long as a minute; nobody need wait for it. Raises `RefusedModel`."""
        tokens = tuple(range(1, 1 + WARM_UP_TOKENS))
        work = Generate(tokens=tokens, sampling=Sampling(max_tokens=WARM_UP_TOKENS, temperature=1.0, logprobs=1))
        try:
            async for _ in self.answer("warm-up", work):
                pass
        except TidemillError as error:
            raise RefusedModel(f"vLLM has loaded the model and cannot run it: {error.message}") from error

    async def answer(self, name: str, work: Generate) -> AsyncIterator[tuple[tuple[Delta, ...], Usage | None]]:
        """What each step brought, the last time with what it all took. To be cancelled aborts it; `forget` afterwards.

        Raises `WrongValue`, `NotOffered`, `PromptTooLong`, `Overloaded`, `EngineFailed`.
        """
        prompt = self.text.prompt(work)
        most = ranges.tokens_max(len(prompt), work.sampling.max_tokens, self._context)
        drawn = cached = 0
        try:
            params = sampling.params(work, most, self._ours)
            async for output in self._engine.generate(tokens_input(prompt), params, name):
                told = tuple(telling.deltas(output.outputs, work.sampling.logprobs))
                drawn += sum(len(each.tokens) for each in told)
                cached = output.num_cached_tokens or cached
                usage = None
                if output.finished:
                    usage = Usage(prompt_tokens=len(prompt), completion_tokens=drawn, cached_tokens=cached)
                if told or usage:
                    yield told, usage
        except VLLMClientError as error:
            raise WrongValue(f"vLLM refuses the request: {error}", param=getattr(error, "parameter", None)) from error
        except GracefulHTTPError as error:
            raise Overloaded(f"vLLM refuses the request: {error}", retry_after_s=RETRY_AFTER_S) from error
        except EngineDeadError as error:
            raise EngineFailed("a process of vLLM's has ended; it is started again") from error
        except (VLLMError, ValueError) as error:
            raise EngineFailed(f"vLLM failed on this request: {_says(error)}") from error

    async def forget(self, name: str) -> None:
        """Have nothing left of a request that was cancelled, even where that met it on its way to the engine."""
        await self._engine.abort(name)

    def stand_back(self, nice: int) -> None:
        """Each thread of each process of the engine."""
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            for thread in process.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, nice)

    def close(self) -> None:
        self._engine.shutdown(timeout=SHUTDOWN_S_MAX)


class _Steps(StatLoggerBase):  # type: ignore[misc]
    """Hears of each step of one engine."""

    def __init__(self, vllm_config: Any, engine_index: int, stepped: Callable[[Gauges], None]) -> None:
        self._stepped = stepped

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if scheduler_stats is not None:
            waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self._stepped(Gauges(scheduler_stats.num_running_reqs, waiting, float(scheduler_stats.kv_cache_usage)))

    def log_engine_initialized(self) -> None:
        pass


def _defaults(opening: Opening) -> dict[str, Any]:
    """Flags that the operator has not set otherwise."""
    found: dict[str, Any] = {
        "load-format": "safetensors",
        "max-model-len": "auto",  # no longer than its cache holds
        "max-num-seqs": opening.running_max,
        "structured-outputs-config": {"backend": XGRAMMAR, "disable_any_whitespace": True},
    }
    kv_bytes = opening.kv_bytes
    if not kv_bytes and current_platform.is_cpu():  # elsewhere vLLM takes its share of the device
        kv_bytes = int(psutil.virtual_memory().available * MEMORY_SHARE)
    return {**found, "kv-cache-memory-bytes": kv_bytes} if kv_bytes else found


def _says(error: BaseException) -> str:
    """The cause tells more than what was raised for it."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"[:SAYS_CHARACTERS]
