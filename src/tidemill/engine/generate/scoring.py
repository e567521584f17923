"""A list of tokens that is scored in the child: read as a prompt that the engine echoes with its log probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tidemill.core.errors import EngineFailed, NotOffered, PromptTooLong, WrongValue
from tidemill.core.generation import Delta, Score
from tidemill.core.request import Usage
from tidemill.engine.generate import sampling
from tidemill.engine.generate.pipeline import Pipeline

TOKENS_MIN = 2


class Scoring:
    """Life: as `Answering`'s. `logprobs` is there when it is over."""

    def __init__(self, pipeline: Pipeline, work: Score, next_id: Callable[[], int]) -> None:
        if not pipeline.scores:
            raise NotOffered(
                "this process generates, and scores nothing: what it has read before it does not read anew"
            )
        self._pipeline = pipeline
        self._next_id = next_id
        self._tokens = pipeline.known(work.tokens)
        most = pipeline.ready.speaks.context_tokens
        if len(self._tokens) > most:
            raise PromptTooLong(f"{len(self._tokens)} tokens exceed the {most} that this model holds at once")
        if len(self._tokens) < TOKENS_MIN:
            raise WrongValue("a single token is not scored: nothing stands before it", param="tokens")
        self._handle: Any = None
        self._told: list[float] = []
        self.logprobs: tuple[float, ...] | None = None

    def begin(self) -> None:
        made = sampling.echo(self._pipeline.default)
        self._handle = self._pipeline.add(self._next_id(), self._tokens, made)

    @property
    def over(self) -> bool:
        return self.logprobs is not None

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=len(self._tokens))

    def deltas(self) -> Iterator[Delta]:
        """None: what is told is told at the end. Raises `EngineFailed` where the cache could not hold it."""
        handle = self._handle
        while handle.can_read():
            for output in handle.read().values():
                self._told += output.generated_log_probs
        status = handle.get_status().name
        if status == "IGNORED":
            raise EngineFailed(f"the model's cache has no room for {len(self._tokens)} tokens; give it more")
        if status != "RUNNING":
            count = len(self._tokens)
            if len(self._told) < count:
                raise EngineFailed(f"the engine told {len(self._told)} log probabilities for {count} tokens")
            self.logprobs = tuple(self._told[1:count])  # the first stands for none; behind them, the token it drew
            self._handle = None
        return iter(())

    def drop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
