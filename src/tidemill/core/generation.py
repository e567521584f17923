"""What a language model is asked, and what it says: prompts, how tokens are chosen, and the words as they come; used in
every process. Values are checked by the door that took them; an engine refuses what it cannot do, and fakes nothing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

CALL_TAGS: Final = ("<tool_call>", "</tool_call>")
"""What a call stands between among words, as many models were trained."""
Finish = Literal["", "stop", "length", "tool_calls", "content_filter", "cancelled"]
"""Why a choice ended, in OpenAI's words; "" while it goes on."""


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """How the next token is chosen. Names and ranges are OpenAI's, those of `top_k`, `min_p` and `repetition_penalty`
    vLLM's.

    `max_tokens` 0 is as many as the context still holds. `temperature` 0 takes the likeliest. `seed` None draws anew.
    `stop` ends a choice before the first of these strings, which is not told. `logprobs` None tells none, else those of
    the chosen token and so many others at each place.
    """

    max_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False


class Constraint(msgspec.Struct, frozen=True, gc=False):
    """What the words must be: any JSON (`json`, `text` empty), JSON that fits the schema in `text` (`json_schema`), a
    match of the regular expression `regex`, or a sentence of the EBNF grammar `grammar`.

    With `calls`, the schema of one, the words may be calls instead, each between `CALL_TAGS`: one, or any
    number where they are `parallel`.
    What a caller says beside a schema (`name`, `description`, `strict`) is kept for a model that takes any
    (`Speaks.schemas`), and left out for others, which follow all of them strictly."""

    kind: Literal["json", "json_schema", "regex", "grammar"]
    text: str = ""
    name: str = ""
    description: str = ""
    strict: bool | None = None
    calls: str = ""
    parallel: bool = True


class Calling(msgspec.Struct, frozen=True, gc=False):
    """Which of `Generate.tools` are called, as it was asked in OpenAI's words: `choice` "" and `parallel` None where
    nothing was said, `name` the one that "named" means."""

    choice: Literal["", "none", "auto", "required", "named"] = ""
    name: str = ""
    parallel: bool | None = None


class Generate(msgspec.Struct, frozen=True, gc=False):
    """Words after a prompt.

    Exactly one of `messages` (chat: OpenAI's message objects, worded by the model's own template, which may be given
    `tools`: OpenAI's tool objects), `prompt` (text as it is) and `tokens` is given; `choices` are drawn from it.
    `calling` is given to a model that makes calls by itself, and no other (`Speaks.calls`).
    Where it does not `stream`, all words but the first may come together at the end, which costs less.
    """

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    prompt: str = ""
    tokens: tuple[int, ...] = ()
    choices: int = 1
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None
    calling: Calling | None = None
    stream: bool = True


class Embed(msgspec.Struct, frozen=True, gc=False):
    """A vector for each text, or for each list of tokens. `dimensions` 0 is as long as the model makes them; fewer are
    the first ones, of length 1 again. The answer is one tensor `embedding`, FP32 [texts, dimensions]."""

    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    dimensions: int = 0


class Tokenise(msgspec.Struct, frozen=True, gc=False):
    """The tokens of a text or, worded by the model's template, of messages: one tensor `tokens`, INT64 [tokens]. With
    `tokens` instead, the text that they stand for: one `Delta`."""

    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tokens: tuple[int, ...] = ()
    special: bool = True


class Score(msgspec.Struct, frozen=True, gc=False):
    """How likely each of `tokens` is after those before it: one tensor `logprobs`, FP32 [tokens - 1], natural
    logarithms; nothing stands before the first."""

    tokens: tuple[int, ...]


class CallDelta(msgspec.Struct, frozen=True, gc=False):
    """More of one call of a function. `call` counts a choice's calls from 0 in the order in which they begin; the first
    of each has `call_id` and `name`, and `arguments` of all, one behind the other, are its arguments as text."""

    call: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The next words of one choice. `text` is whole characters; what may become a stop string is held back until it is
    known not to. `tokens` are those that were drawn since the delta before (none where another server drew them and
    does not tell), `logprobs` and `spelled` (each by itself) are theirs where logprobs were asked for (then a token
    that is not told is -1), `top` the likeliest others at each place, (token, text, logprob). `calls` are of a model
    that makes them by itself. The last of a choice has a `finish`."""

    choice: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    spelled: tuple[str, ...] = ()
    top: tuple[tuple[tuple[int, str, float], ...], ...] = ()
    finish: Finish = ""
    calls: tuple[CallDelta, ...] = ()


class Speaks(msgspec.Struct, frozen=True):
    """What a language model is: how many tokens prompt and answer may have together, how many it knows, whether it
    has a template for chat, and whether that tells `tools`, their calls and what came of them; where it does not, they
    are put into words before the messages reach it.

    One that `calls` makes calls by itself: messages, tools and `Generate.calling` reach it as they were asked, and
    `Delta.calls` tell what it calls. To others calls are a form of words. One of `schemas` is given any JSON schema,
    whether it is held here or not."""

    context_tokens: int
    vocabulary: int = 0
    chats: bool = False
    tools: bool = False
    calls: bool = False
    schemas: bool = False


class Busy(msgspec.Struct, frozen=True):
    """How busy a language model is: answers that are drawn, those that wait for a place, the share of its cache that
    is in use, and how often what runs it had to be started again."""

    running: int = 0
    waiting: int = 0
    cache_share: float = 0.0
    restarts: int = 0
