"""`/v1/completions`: the request into work, a piece for each prompt, and its answer into one object or chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Delta, Generate, Speaks
from tidemill.core.request import Usage, Work
from tidemill.doors.openai import inputs, sampling
from tidemill.doors.openai.asked import DONE, About, Whole, event, total, usage_of
from tidemill.doors.openai.bounds import COMPLETION_LOGPROBS_MAX, PROMPTS_MAX, Limits
from tidemill.doors.openai.common import harmless, include_usage
from tidemill.doors.openai.fields import Fields


@dataclass(frozen=True, slots=True)
class Completions:
    """`asked.Asked` of completions. `echo` holds what stands before each choice, one text for each prompt."""

    works: Sequence[Work]
    stream: bool
    usage: bool
    choices: int
    echo: tuple[str, ...]
    logprobs: bool
    shaped_by: str = ""

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        return {
            **_head(about),
            "choices": [
                self._choice(work, choice, [delta for delta in each.deltas if delta.choice == choice])
                for work, each in enumerate(told)
                for choice in range(self.choices)
            ],
            "usage": usage_of(total([each.usage for each in told])),
        }

    def _choice(self, work: int, choice: int, deltas: list[Delta]) -> dict[str, Any]:
        text = self.echo[work] + "".join(delta.text for delta in deltas)
        return {
            "index": work * self.choices + choice,
            "text": text,
            "logprobs": logprobs_of(deltas, len(self.echo[work])) if self.logprobs else None,
            "finish_reason": next((delta.finish for delta in deltas if delta.finish), None),
        }

    def teller(self, about: About) -> Chunks:
        return Chunks(self, about)


def read(fields: Fields, speaks: Speaks, limits: Limits) -> Completions:
    """Raises the errors of `Fields`, each with its `param`."""
    prompts = inputs.read(fields, "prompt", PROMPTS_MAX, speaks.vocabulary)
    if "" in prompts:
        raise fields.wrong("prompt", "is empty: a model writes after something")
    stream = fields.flag("stream", False)
    with_usage = include_usage(fields, stream)
    choices = fields.whole("n", 1, limits.choices_max) or 1
    best_of = fields.whole("best_of", 1, limits.choices_max)
    if best_of not in (None, choices):
        raise NotOffered(f"best_of is {best_of} and n {choices}: all that is drawn is told", param="best_of")
    fields.refuse("suffix", "the model writes after its prompt alone", "")
    echo = fields.flag("echo", False)
    if echo and any(not isinstance(prompt, str) for prompt in prompts):
        raise NotOffered("echo tells a prompt of text again, not one of tokens", param="echo")
    logprobs = fields.whole("logprobs", 0, COMPLETION_LOGPROBS_MAX)
    if echo and logprobs is not None:
        raise NotOffered("logprobs are those of the answer; with echo the prompt's are wanted too", param="logprobs")
    how = sampling.read(fields, speaks, ("max_tokens",), logprobs)
    harmless(fields)
    fields.end()
    works = [
        Generate(prompt=each, choices=choices, sampling=how)
        if isinstance(each, str)
        else Generate(tokens=each, choices=choices, sampling=how)
        for each in prompts
    ]
    told = tuple(each if echo and isinstance(each, str) else "" for each in prompts)
    return Completions(tuple(works), stream, with_usage, choices, told, logprobs is not None)


def logprobs_of(deltas: Sequence[Delta], offset: int) -> dict[str, Any]:
    """The four lists of this older form; `offset` is where the first token begins in the text."""
    tokens, values, tops, offsets = [], [], [], []
    for delta in deltas:
        for index, value in enumerate(delta.logprobs):
            spelled = delta.spelled[index] if index < len(delta.spelled) else ""
            others = delta.top[index] if index < len(delta.top) else ()
            tokens.append(spelled)
            values.append(value)
            tops.append({text: logprob for _, text, logprob in others} or {spelled: value})
            offsets.append(offset)
            offset += len(spelled)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _head(about: About) -> dict[str, Any]:
    return {
        "id": f"cmpl-{about.request_id}",
        "object": "text_completion",
        "created": about.created_s,
        "model": about.model,
        "system_fingerprint": about.fingerprint,
    }


class Chunks:
    """`asked.Teller` of completions."""

    def __init__(self, asked: Completions, about: About) -> None:
        self._asked = asked
        self._head = _head(about)
        self._offsets: dict[int, int] = {}

    def begin(self) -> bytes:
        asked = self._asked
        return b"".join(
            self._chunk(work * asked.choices + choice, text, None)
            for work, text in enumerate(asked.echo)
            for choice in range(asked.choices)
            if text
        )

    def told(self, work: int, delta: Delta) -> bytes:
        if not delta.text and not delta.finish and not delta.logprobs:
            return b""
        index = work * self._asked.choices + delta.choice
        shown = None
        if self._asked.logprobs:
            offset = self._offsets.get(index, 0)
            shown = logprobs_of([delta], offset)
            self._offsets[index] = offset + sum(map(len, shown["tokens"]))
        return self._chunk(index, delta.text, delta.finish or None, shown)

    def end(self, usage: Usage) -> bytes:
        if not self._asked.usage:
            return DONE
        return event({**self._head, "choices": [], "usage": usage_of(usage)}) + DONE

    def _chunk(self, index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**self._head, "choices": [choice]}
        return event({**chunk, "usage": None} if self._asked.usage else chunk)
