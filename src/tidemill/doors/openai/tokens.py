"""`/v1/tokenize` and `/v1/detokenize`, in the form that vLLM gave them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Speaks, Tokenise
from tidemill.core.request import Work
from tidemill.doors.openai import inputs, messages, tools, wording
from tidemill.doors.openai.asked import About, Teller, Whole
from tidemill.doors.openai.bounds import TEXT_MAX
from tidemill.doors.openai.fields import Fields


@dataclass(frozen=True, slots=True)
class Tokens:
    """`asked.Asked` of both; they are not streamed."""

    works: Sequence[Work]
    context_tokens: int
    back: bool
    stream: bool = False
    shaped_by: str = ""

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        if self.back:
            return {"prompt": "".join(delta.text for delta in told[0].deltas)}
        found = told[0].tensors["tokens"].tolist()
        return {"count": len(found), "max_model_len": self.context_tokens, "tokens": found}

    def teller(self, about: About) -> Teller:
        raise NotOffered("tokens are not streamed", param="stream")


def tokenize(fields: Fields, speaks: Speaks) -> Tokens:
    """Of `prompt`, or of `messages` as the model is told them."""
    special = fields.flag("add_special_tokens", True)
    if fields.take("messages") is not None:
        if fields.take("prompt") is not None:
            raise WrongValue("prompt and messages are both given, one of them is taken", param="prompt")
        if not speaks.chats:
            raise NotOffered("this model has no template for chat: send prompt", param="messages")
        told = messages.read(fields, speaks)
        use = tools.read(fields, flat=False, speaks=speaks)
        fields.end()
        plain = told if speaks.tools else wording.worded(told, use)
        offered = tuple(tool.told() for tool in use.offered) if speaks.tools else ()
        return Tokens((Tokenise(messages=plain, tools=offered, special=special),), speaks.context_tokens, back=False)
    fields.needed("prompt")
    text = fields.text("prompt", TEXT_MAX) or ""
    fields.end()
    return Tokens((Tokenise(text=text, special=special),), speaks.context_tokens, back=False)


def detokenize(fields: Fields, speaks: Speaks) -> Tokens:
    fields.needed("tokens")
    given = fields.items("tokens", inputs.TOKENS_MAX, 1) or []
    found = inputs.tokens(given, fields.place("tokens"), speaks.vocabulary)
    fields.end()
    return Tokens((Tokenise(tokens=found),), speaks.context_tokens, back=True)
