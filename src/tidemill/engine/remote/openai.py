"""Words to and from a server that speaks OpenAI's protocol; pure. What it has no word for is refused, never dropped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from tidemill.core.errors import NotOffered, PromptTooLong, RefusedByEngine, TidemillError, UpstreamFailed
from tidemill.core.generation import Calling, Constraint, Delta, Embed, Finish, Generate, Sampling, Tokenise
from tidemill.core.package import Remote
from tidemill.core.request import Usage
from tidemill.core.tensor import Array
from tidemill.core.text import short
from tidemill.engine.remote.calls import Calls
from tidemill.engine.remote.http import Asking, decoded

MODELS: Final = "/v1/models"
DONE: Final = b"[DONE]"
TOKENS_MAX: Final = 10**9
"""More than this is no count that an upstream means."""
UNKNOWN_TOKEN: Final = -1
FINISHES: Final[dict[str, Finish]] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
"""All others (`stop`, what servers made up) mean that the model has said all that it will."""


def asking(model: str, work: Generate, wish: Remote) -> Asking:
    """Raises `NotOffered` for what the protocol has no word for."""
    chat = bool(work.messages)
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if chat:
        body["messages"] = work.messages
    else:
        body["prompt"] = list(work.tokens) if work.tokens else work.prompt
    if work.tools:
        body["tools"] = work.tools
    if work.calling is not None:
        body |= _called(work.calling)
    if work.choices != 1:
        body["n"] = work.choices
    body |= _sampled(work.sampling, chat, wish)
    body |= _constrained(work.constraint, chat, wish)
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return Asking("POST", path, orjson.dumps(body), {"content-type": "application/json", "accept": "text/event-stream"})


def embedding(model: str, work: Embed) -> Asking:
    body: dict[str, Any] = {"model": model, "input": work.texts or work.tokens, "encoding_format": "base64"}
    if work.dimensions:
        body["dimensions"] = work.dimensions
    return Asking("POST", "/v1/embeddings", orjson.dumps(body), {"content-type": "application/json"})


def tokenising(model: str, work: Tokenise) -> Asking:
    """vLLM's two addresses, which Tidemill has below `/v1`. Messages have the tokens that begin a prompt by their
    template: vLLM would add them once more."""
    body: dict[str, Any] = {"model": model}
    if work.tokens:
        body["tokens"] = work.tokens
    elif work.messages:
        body |= {"messages": work.messages, **({"tools": work.tools} if work.tools else {})}
    else:
        body |= {"prompt": work.text, "add_special_tokens": work.special}
    path = "/detokenize" if work.tokens else "/tokenize"
    return Asking("POST", f"/v1{path}", orjson.dumps(body), {"content-type": "application/json"}, path)


def tokenised(body: bytes) -> Array | str:
    """Raises `UpstreamFailed`."""
    told = decoded(body)
    try:
        return np.array(told["tokens"], np.int64) if "tokens" in told else str(told["prompt"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UpstreamFailed(f"the upstream's tokens cannot be read: {error!r:.200}") from error


def vectors(body: bytes, count: int) -> tuple[Array, Usage | None]:
    """FP32 [count, D] in the order in which they were asked for. Raises `UpstreamFailed`."""
    told = decoded(body)
    try:
        rows: list[Array | None] = [None] * count
        for each in told["data"]:
            rows[each["index"]] = _vector(each["embedding"])
        found = np.stack([row for row in rows if row is not None])
        if len(found) != count or found.ndim != 2:
            raise ValueError(f"{len(found)} vectors came for {count} texts")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UpstreamFailed(f"the upstream's vectors cannot be read: {error!r:.200}") from error
    return found, usage(told.get("usage"))


def usage(told: Any) -> Usage | None:
    """None where there is none that can be believed."""
    if not isinstance(told, dict):
        return None
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [told.get("prompt_tokens"), told.get("completion_tokens", 0), cached or 0]
    if any(not isinstance(each, int) or not 0 <= each <= TOKENS_MAX for each in counts):
        return None
    prompt, completion, cached = counts
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=min(cached, prompt))


class Said:
    """What the events of one answer come to: deltas as they come, and its usage."""

    def __init__(self, choices: int) -> None:
        self.usage: Usage | None = None
        self.over = False
        self.texts = [""] * choices
        """What was said, calls and their arguments among it."""
        self._calls = [Calls() for _ in range(choices)]
        self._open = set(range(choices))

    @property
    def complete(self) -> bool:
        """Whether every choice has ended."""
        return not self._open

    def take(self, event: bytes) -> tuple[Delta, ...]:
        """Raises `UpstreamFailed` for an event that tells an error, or is none."""
        if event == DONE:
            self.over = True
            return ()
        told = decoded(event)
        try:
            if error := told.get("error"):
                raise _broken_off(error)
            self.usage = usage(told.get("usage")) or self.usage
            return tuple(delta for each in told.get("choices") or () if (delta := self._delta(each)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UpstreamFailed(f"the upstream's answer cannot be read: {error!r:.200}") from error

    def _delta(self, told: dict[str, Any]) -> Delta | None:
        choice = int(told.get("index", 0))
        if choice not in self._open:
            if not 0 <= choice < len(self.texts):
                raise ValueError(f"choice {choice} was not asked for")
            return None
        said = told.get("delta") or {}
        text = said.get("content") or told.get("text") or ""
        calls = self._calls[choice].take(said.get("tool_calls"))
        logprobs, spelled, top = _logprobs(told.get("logprobs"))
        finish: Finish = ""
        if ended := told.get("finish_reason"):
            finish = FINISHES.get(ended, "stop")
            self._open.discard(choice)
        if not text and not finish and not logprobs and not calls:
            return None
        self.texts[choice] += text + "".join(each.name + each.arguments for each in calls)
        return Delta(choice, text, (UNKNOWN_TOKEN,) * len(logprobs), logprobs, spelled, top, finish, calls)


def _broken_off(told: Any) -> TidemillError:
    """The error of an event: a refusal that came late, or a failure."""
    words = told if isinstance(told, dict) else {"message": str(told)}
    message = short(str(words.get("message", "")), 400)
    if words.get("code") == "context_length_exceeded":
        return PromptTooLong(f"the upstream refused: {message}")
    if words.get("type") == "invalid_request_error":
        return RefusedByEngine(f"the upstream refused: {message}")
    return UpstreamFailed(f"the upstream broke off with an error: {message}")


def _sampled(how: Sampling, chat: bool, wish: Remote) -> dict[str, Any]:
    usual = Sampling()
    body: dict[str, Any] = {"temperature": how.temperature, "top_p": how.top_p}
    if how.max_tokens:
        body[wish.max_tokens_name if chat else "max_tokens"] = how.max_tokens
    for name in ("presence_penalty", "frequency_penalty", "seed"):
        if getattr(how, name) != getattr(usual, name):
            body[name] = getattr(how, name)
    for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos"):
        if getattr(how, name) != getattr(usual, name):
            if not wish.extensions:
                raise NotOffered(f"OpenAI's protocol has no {name}, which the upstream is asked in", param=name)
            body[name] = getattr(how, name)
    if how.stop:
        body["stop"] = list(how.stop)
    if how.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in how.logit_bias}
    if how.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": how.logprobs} if chat else {"logprobs": how.logprobs}
    return body


def _called(calling: Calling) -> dict[str, Any]:
    """As it was asked: what was not said is not said."""
    body: dict[str, Any] = {}
    if calling.choice == "named":
        body["tool_choice"] = {"type": "function", "function": {"name": calling.name}}
    elif calling.choice:
        body["tool_choice"] = calling.choice
    if calling.parallel is not None:
        body["parallel_tool_calls"] = calling.parallel
    return body


def _constrained(constraint: Constraint | None, chat: bool, wish: Remote) -> dict[str, Any]:
    if constraint is None:
        return {}
    if constraint.calls:
        raise NotOffered(
            "calls in words stand beside no form in OpenAI's protocol; set tool_choice to none or required",
            param="response_format",
        )
    if constraint.kind in ("json", "json_schema") and (chat or wish.extensions):
        if constraint.kind == "json":
            return {"response_format": {"type": "json_object"}}
        schema: dict[str, Any] = {"name": constraint.name or "answer", "schema": orjson.loads(constraint.text)}
        if constraint.description:
            schema["description"] = constraint.description
        strict = constraint.strict if constraint.name else True
        if strict is not None:
            schema["strict"] = strict
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if wish.extensions and constraint.kind in ("regex", "grammar"):
        return {"structured_outputs": {constraint.kind: constraint.text}}
    raise NotOffered(f"OpenAI's protocol has no word for a {constraint.kind} here, which the upstream is asked in")


_Logprobs = tuple[tuple[float, ...], tuple[str, ...], tuple[tuple[tuple[int, str, float], ...], ...]]


def _logprobs(told: Any) -> _Logprobs:
    """Of a chat (`content`: an object a token) or of a completion (lists)."""
    if not isinstance(told, dict):
        return (), (), ()
    content = told.get("content")
    if isinstance(content, list):
        top = [
            tuple((UNKNOWN_TOKEN, str(other["token"]), float(other["logprob"])) for other in each["top_logprobs"] or ())
            for each in content
        ]
        return (
            tuple(float(each["logprob"]) for each in content),
            tuple(str(each["token"]) for each in content),
            tuple(top),
        )
    values: Sequence[Any] = told.get("token_logprobs") or ()
    others = told.get("top_logprobs") or ()
    return (
        tuple(float(value) for value in values),
        tuple(str(token) for token in told.get("tokens") or ()),
        tuple(tuple((UNKNOWN_TOKEN, str(text), float(value)) for text, value in each.items()) for each in others),
    )


def _vector(told: Any) -> Array:
    if isinstance(told, str):
        return np.frombuffer(base64.b64decode(told, validate=True), "<f4").astype(np.float32)
    return np.array(told, np.float32)
