"""Steps on text: decode, tokenise; pure, on the steps' threads."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia
from tidemill.steps.step import Function, Name, Place, Step, Values, given, raw
from tidemill.steps.tokens import CHARACTERS_A_TOKEN, load_tokenizer


class Text(Step, frozen=True, kw_only=True):
    """Decodes UTF-8: the whole of what was sent is one text, or with `lines` each line that is not empty."""

    accepts: ClassVar[tuple[str, ...]] = ("text/plain",)
    lines: Annotated[bool, Meta(description="a text a line")] = False
    lines_max: Annotated[int, Meta(ge=1, le=65_536)] = 256
    output: Name = "text"

    def bind(self, place: Place) -> Function:
        def apply(values: Values) -> Values:
            text = decode(raw(values), place.bounds.text_bytes_max)
            texts = [line for line in text.splitlines() if line.strip()] if self.lines else [text]
            if not text.strip():
                raise BadMedia(f"the text is empty: {len(text)} characters, none of them visible")
            if len(texts) > self.lines_max:
                raise BadMedia(f"{len(texts)} lines were sent, the most allowed is {self.lines_max}")
            return {self.output: texts}

        return apply


def decode(data: bytes, bytes_max: int) -> str:
    """Raises `BadMedia`."""
    if len(data) > bytes_max:
        raise BadMedia(f"the text has {len(data)} bytes, the most allowed is {bytes_max} (--text-bytes-max)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = data[error.start : error.start + 1].hex()
        raise BadMedia(f"the text is expected to be UTF-8; byte {error.start} is {found}: {error.reason}") from error


class Tokenise(Step, frozen=True, kw_only=True):
    """Texts to `input_ids`, `attention_mask` and `token_type_ids` INT64 [N, T], by the tokenizer beside the model.

    What is longer than `tokens_max` is cut, and so is what lies behind 100 characters for each of them; what is shorter
    than the longest is filled up.
    """

    tokens_max: Annotated[int, Meta(ge=1, le=65_536, description="tokens of one text at most")] = 512
    file: Name = "tokenizer.json"
    input: Name = "text"
    ids: Name = "input_ids"
    mask: Name = "attention_mask"
    types: Name = "token_type_ids"

    def bind(self, place: Place) -> Function:
        tokenizer = load_tokenizer(place.file(self.file))
        tokenizer.enable_truncation(self.tokens_max)
        padding = tokenizer.padding or {}
        tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))

        characters_max = CHARACTERS_A_TOKEN * self.tokens_max

        def apply(values: Values) -> Values:
            rows = tokenizer.encode_batch([text[:characters_max] for text in given(values, self.input)])
            return {
                self.ids: np.array([row.ids for row in rows], np.int64),
                self.mask: np.array([row.attention_mask for row in rows], np.int64),
                self.types: np.array([row.type_ids for row in rows], np.int64),
            }

        return apply
