"""Texts as tokens, by the tokenizer.json that lies beside a model; runs in the command line's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.compress.data import Row
from tidemill.core.errors import BadData, MissingPart
from tidemill.core.tensor import Signature

if TYPE_CHECKING:
    from tidemill.compress.sources import Reading


@dataclass(frozen=True, slots=True)
class Plan:
    """Which input holds what. `length` is what the model fixes, 0 where a text may have any; `pads` fill shorter ones.

    `present` is the input that tells tokens from padding. Without a tokenizer the model takes the text itself.
    """

    roles: Mapping[str, str]
    signature: Signature
    tokenizer: Any
    pads: Mapping[str, int]
    length: int = 0

    @property
    def present(self) -> str | None:
        return next((name for name, role in self.roles.items() if role == "mask"), None)

    def rows(self, texts: Sequence[str]) -> list[Row]:
        if self.tokenizer is None:
            spec = self.signature.inputs[0]
            shape = () if spec.shape is None else (1,) * (len(spec.shape) - 1)
            return [{spec.name: np.array([text.encode()], object).reshape(shape)} for text in texts]
        return [self._row(encoding) for encoding in self.tokenizer.encode_batch(list(texts))]

    def _row(self, encoding: Any) -> Row:
        values = {
            "ids": encoding.ids,
            "mask": [1] * len(encoding.ids),
            "types": encoding.type_ids,
            "places": range(len(encoding.ids)),
        }
        row = {}
        for spec in self.signature.inputs:
            array = np.array(values[self.roles[spec.name]], spec.dtype)
            if self.length:
                array = np.pad(array, (0, self.length - len(array)), constant_values=self.pads[spec.name])
            row[spec.name] = array
        return row


def plan(reading: Reading, told: str) -> Plan:
    """Raises `BadData` for a model that takes no text, `MissingPart`."""
    signature = reading.signature
    if [spec.datatype for spec in signature.inputs] == ["BYTES"]:
        return Plan({}, signature, None, {})
    roles = {spec.name: _role(spec.name) for spec in signature.inputs}
    tokens = all(spec.dtype.kind == "i" and (spec.shape is None or len(spec.shape) == 2) for spec in signature.inputs)
    if not tokens or list(roles.values()).count("ids") != 1:
        raise BadData(
            f"{told} is text, and this model takes no tokens but {', '.join(map(str, signature.inputs))};"
            " give it arrays (.npz)"
        )
    if reading.tokenizer is None or not reading.tokenizer.is_file():
        raise BadData(
            f"{told} is text, and there is no tokenizer.json beside the model; put it there, or give arrays (.npz)"
        )
    tokenizer = _opened(reading.tokenizer)
    lengths = [spec.shape[1] for spec in signature.inputs if spec.shape and spec.shape[1] > 0]
    length = lengths[0] if lengths else 0
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    tokenizer.enable_truncation(length or reading.limits.tokens_max)
    pads = {name: int(padding.get("pad_id", 0)) if role == "ids" else 0 for name, role in roles.items()}
    return Plan(roles, signature, tokenizer, pads, length)


def _opened(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPart("making tokens of text needs tokenizers: pip install 'tidemill[compress]'") from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise BadData(f"{path} is no tokenizer that can be read: {error}") from error


def _role(name: str) -> str:
    """As exporters call them: input_ids, attention_mask, token_type_ids, position_ids."""
    for part, role in (("mask", "mask"), ("type", "types"), ("segment", "types"), ("position", "places")):
        if part in name.lower():
            return role
    return "ids"
