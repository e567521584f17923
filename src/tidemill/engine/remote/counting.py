"""Tokens that an upstream did not count, counted here; pure but for its loading, on the owner's loop.

By the `tokenizer.json` that `[remote]` names, exactly but for what a template adds; without one a token is taken for
each four bytes of UTF-8, which English comes to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from tidemill.core.errors import NotOffered, RefusedModel
from tidemill.core.generation import Embed, Generate, Tokenise
from tidemill.core.tensor import Array
from tidemill.steps.step import Place
from tidemill.steps.tokens import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES_A_TOKEN = 4


class Counting:
    def __init__(self, file: str, folder: Path) -> None:
        """`file` is "" where there is none. Raises `RefusedModel`."""
        self._tokenizer: Tokenizer | None = None
        if file:
            try:
                self._tokenizer = load_tokenizer(Place(folder).file(file))
            except ImportError as error:
                raise RefusedModel(f"[remote] tokenizer needs {error.name}: pip install 'tidemill[data]'") from error
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()

    @property
    def vocabulary(self) -> int:
        return 0 if self._tokenizer is None else int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def text(self, text: str) -> int:
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)

    def prompt(self, work: Generate | Embed) -> int:
        """Of messages, their words, their roles and what they may call or called."""
        if isinstance(work, Embed):
            return sum(map(self.text, work.texts)) + sum(map(len, work.tokens))
        if work.tokens:
            return len(work.tokens)
        if not work.messages:
            return self.text(work.prompt)
        tools = [orjson.dumps(each).decode() for each in work.tools]
        return self.text("\n".join([*tools, *(_words(each) for each in work.messages)]))

    def tokenised(self, work: Tokenise) -> Array | str:
        """Tokens of a text, or the text of tokens. Raises `NotOffered` without a tokenizer, and for messages."""
        if self._tokenizer is None:
            raise NotOffered("no tokenizer is known for this model; its [remote] may name one", param="model")
        if work.messages:
            raise NotOffered("this model's tokenizer has no template for chat: send prompt", param="messages")
        if work.tokens:
            return str(self._tokenizer.decode(list(work.tokens), skip_special_tokens=not work.special))
        return np.array(self._tokenizer.encode(work.text, add_special_tokens=work.special).ids, np.int64)


def _words(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    calls = [f"{call['function']['name']}{call['function']['arguments']}" for call in message.get("tool_calls", ())]
    return "\n".join([message.get("role", ""), content, *calls])
