"""One request under way in the child: its choices, and what each step brought to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tidemill.core.errors import EngineFailed, NotOffered
from tidemill.core.generation import Delta, Finish, Generate
from tidemill.core.request import Usage
from tidemill.engine.generate import ranges, sampling
from tidemill.engine.generate.pipeline import Pipeline
from tidemill.engine.generate.words import Words

FINISH: dict[str, Finish] = {"STOP": "stop", "LENGTH": "length", "TOOL_CALL": "stop"}


class Choice:
    """One answer that is drawn. `handle` is None before it is begun and after it has ended."""

    __slots__ = ("handle", "index", "tokens", "words")

    def __init__(self, index: int, words: Words) -> None:
        self.index = index
        self.words = words
        self.handle: Any = None
        self.tokens = 0


class Answering:
    """Life: built (raises what the request is refused with), `begin`, `deltas` after each step until `over`; `drop`
    gives back what is held, at any time."""

    def __init__(self, pipeline: Pipeline, work: Generate, next_id: Callable[[], int]) -> None:
        self._pipeline = pipeline
        self._next_id = next_id
        self._sampling = work.sampling
        sampling.check(work.sampling, work.choices)
        self._constraint = work.constraint
        self.prompt = prompt_of(pipeline, work)
        self._tokens_max = ranges.tokens_max(
            len(self.prompt), work.sampling.max_tokens, pipeline.ready.speaks.context_tokens
        )
        self._seed = sampling.first_seed(work.sampling)
        stops = work.sampling.stop
        self._choices = [Choice(index, Words(pipeline.spelling, stops)) for index in range(work.choices)]
        self._later: list[Choice] = []
        self._open = 0
        self._stream = work.stream
        self._kept: list[Delta] = []
        self._begun = False

    def begin(self) -> None:
        """Begin the first choice; the others follow its first token, when the prompt's work can be shared."""
        self._open = len(self._choices)
        self._later = self._choices[1:]
        self._begin(self._choices[0])

    def _begin(self, choice: Choice) -> None:
        made = sampling.config(
            self._pipeline.default, self._sampling, self._constraint, self._tokens_max, self._seed + choice.index
        )
        choice.handle = self._pipeline.add(self._next_id(), self.prompt, made)

    @property
    def over(self) -> bool:
        return not self._open

    @property
    def usage(self) -> Usage:
        drawn = sum(choice.tokens for choice in self._choices)
        return Usage(prompt_tokens=len(self.prompt), completion_tokens=drawn)

    def deltas(self) -> tuple[Delta, ...]:
        """What is to be told after the last step: what it brought or, where nobody reads along, nothing between the
        first words and the end. Raises `EngineFailed` where the cache could not hold it."""
        self._kept += self._brought()
        if self._begun and not self._stream and not self.over:
            return ()
        told, self._kept = tuple(self._kept), []
        self._begun = self._begun or bool(told)
        return told

    def _brought(self) -> Iterator[Delta]:
        for choice in self._choices:
            if choice.handle is not None and (delta := self._read(choice)) is not None:
                yield delta
        if self._later and self._choices[0].tokens:
            later, self._later = self._later, []
            for choice in later:
                self._begin(choice)

    def _read(self, choice: Choice) -> Delta | None:
        handle = choice.handle
        tokens: list[int] = []
        logprobs: list[float] = []
        finish: Finish = ""
        while handle.can_read():
            for output in handle.read().values():
                tokens += output.generated_ids
                logprobs += output.generated_log_probs
                finish = FINISH.get(output.finish_reason.name, finish)
        status = handle.get_status().name
        if status == "IGNORED":
            raise EngineFailed(
                f"the model's cache of {self._pipeline.ready.kv_tokens} tokens has no room left for this answer, after"
                f" {choice.tokens + len(tokens)} tokens; ask for fewer, or give it more (--kv-cache-bytes)",
                retry_after_s=1.0,
            )
        if not tokens and status == "RUNNING":
            return None
        choice.tokens += len(tokens)
        text = choice.words.add(tokens)
        if choice.words.stopped:
            finish = "stop"
            handle.cancel()
        elif status != "RUNNING":
            finish = finish or "length"
            text += choice.words.end()
            finish = "stop" if choice.words.stopped else finish
        if finish:
            choice.handle = None
            self._open -= 1
        told = self._sampling.logprobs is not None
        return Delta(
            choice.index,
            text,
            tuple(tokens),
            tuple(logprobs) if told else (),
            tuple(self._pipeline.spelling[each].decode("utf-8", "replace") for each in tokens) if told else (),
            finish=finish,
        )

    def drop(self) -> None:
        """The next step frees what the choices hold."""
        for choice in self._choices:
            if choice.handle is not None:
                choice.handle.cancel()
                choice.handle = None
        self._later = []
        self._open = 0


def prompt_of(pipeline: Pipeline, work: Generate) -> list[int]:
    """The tokens of the prompt. Raises `WrongValue`, `PromptTooLong`, `NotOffered`."""
    if work.messages:
        return pipeline.tokens(worded(pipeline, work.messages, work.tools), special=False)
    if work.tokens:
        return pipeline.known(work.tokens)
    return pipeline.tokens(work.prompt, special=True)


def worded(pipeline: Pipeline, messages: tuple[dict[str, Any], ...], tools: tuple[dict[str, Any], ...]) -> str:
    if pipeline.template is None:
        raise NotOffered("this model has no template for chat; give it a prompt (/v1/completions)", param="messages")
    return pipeline.template.word(messages, tools)
