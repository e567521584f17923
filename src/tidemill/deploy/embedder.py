"""What makes vectors of texts beside a model: its tokenizer, which texts run together, how states become one vector.

Pure but for its loading; runs on a thread that loads, on the steps' threads and on the owner's loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tidemill.core.errors import EngineFailed, PromptTooLong, RefusedModel, WrongValue
from tidemill.core.package import Embedding, ModelPackage
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.deploy.steps import home
from tidemill.steps.step import Bounds, Place
from tidemill.steps.tokens import CHARACTERS_A_TOKEN, load_tokenizer
from tidemill.steps.vectors import mean, unit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WASTE_MAX = 0.2
"""Of a batch's places may be padding: texts of other lengths make a batch of their own."""
FLOATS = ("FP16", "FP32", "FP64")


class Embedder:
    """Made once with its model. `dimensions` is 0 where the model itself does not tell."""

    def __init__(self, wish: Embedding, signature: Signature, cutting: Tokenizer, whole: Tokenizer) -> None:
        """`cutting` cuts at `wish.tokens_max`, `whole` never does. Raises `RefusedModel`."""
        inputs = {spec.name: spec for spec in signature.inputs}
        if wish.ids not in inputs:
            raise RefusedModel(f"[embed] takes the tokens' input for {wish.ids!r}; the model has {', '.join(inputs)}")
        if others := inputs.keys() - {wish.ids, wish.mask, wish.types}:
            raise RefusedModel(f"[embed] knows tokens, mask and types; the model wants {', '.join(sorted(others))} too")
        self.wish = wish
        self.output = _output(wish, signature)
        self.dimensions = max((self.output.shape or (0,))[-1], 0)
        self.vocabulary: int = whole.get_vocab_size(with_added_tokens=True)
        self._inputs = inputs
        self._cutting = cutting
        self._whole = whole
        self._pad = int((whole.padding or {}).get("pad_id", 0))

    def encoded(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """The tokens of each text, as the model reads them. Blocks.

        Raises `PromptTooLong` for one that is longer than the model reads, where it is not to be cut.
        """
        wish = self.wish
        characters_max = CHARACTERS_A_TOKEN * wish.tokens_max
        if wish.truncate:
            return [each.ids for each in self._cutting.encode_batch([text[:characters_max] for text in texts])]
        for number, text in enumerate(texts):
            if len(text) > characters_max:
                raise self._too_long(number, f"{len(text)} characters", f"{characters_max} characters")
        found: list[Sequence[int]] = [each.ids for each in self._whole.encode_batch(list(texts))]
        for number, row in enumerate(found):
            self._check_length(number, row)
        return found

    def checked(self, rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Tokens that the caller made. Raises `WrongValue`, `PromptTooLong`; too many are never cut, for what ends a
        text would be lost."""
        for number, row in enumerate(rows):
            if not row:
                raise WrongValue(f"list {number} of tokens is empty", param="input")
            if min(row) < 0 or max(row) >= self.vocabulary:
                bad = next(token for token in row if not 0 <= token < self.vocabulary)
                raise WrongValue(
                    f"list {number} of tokens holds {bad}; this model's are 0 to {self.vocabulary - 1}", param="input"
                )
            self._check_length(number, row)
        return list(rows)

    def tokens(self, text: str, special: bool) -> Array:
        """INT64 [tokens], never cut. Blocks."""
        return np.array(self._whole.encode(text, add_special_tokens=special).ids, np.int64)

    def text(self, tokens: Sequence[int], special: bool) -> str:
        """What `tokens` stand for. Blocks. Raises `WrongValue`."""
        for token in tokens:
            if not 0 <= token < self.vocabulary:
                raise WrongValue(f"there is no token {token}; this model's are 0 to {self.vocabulary - 1}")
        told: str = self._whole.decode(list(tokens), skip_special_tokens=not special)
        return told

    def tensors(self, rows: Sequence[Sequence[int]]) -> Tensors:
        """The model's inputs for `rows`, padded to the longest."""
        shape = len(rows), max(map(len, rows))
        ids, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        given = {self.wish.ids: ids, self.wish.mask: mask, self.wish.types: np.zeros(shape, np.int64)}
        return {name: given[name].astype(spec.dtype, copy=False) for name, spec in self._inputs.items()}

    def vectors(self, answer: Array, lengths: Sequence[int], dimensions: int) -> Array:
        """FP32 [N, dimensions] of the model's answer to rows of `lengths`. Raises `EngineFailed` for another shape."""
        if answer.ndim not in (2, 3) or len(answer) != len(lengths) or answer.shape[-1] < max(dimensions, 1):
            raise EngineFailed(
                f"{self.output.name!r} has shape {list(answer.shape)} for {len(lengths)} texts;"
                " expected [N, D] or [N, T, D]"
            )
        found = self._pooled(answer, lengths) if answer.ndim == 3 else answer.astype(np.float32, copy=False)
        if dimensions:
            found = found[:, :dimensions]
        return unit(found) if self.wish.normalise or dimensions else found

    def check_dimensions(self, wanted: int) -> None:
        """Raises `WrongValue` for more dimensions than the model makes, or fewer than none."""
        if wanted < 0 or (self.dimensions and wanted > self.dimensions):
            raise WrongValue(f"{wanted} dimensions are wanted; the model makes {self.dimensions}", param="dimensions")

    def _pooled(self, states: Array, lengths: Sequence[int]) -> Array:
        places = np.arange(states.shape[1])
        ends = np.asarray(lengths)
        if self.wish.pooling == "mean":
            return mean(states, places < ends[:, np.newaxis])
        chosen = states[:, 0] if self.wish.pooling == "first" else states[np.arange(len(states)), ends - 1]
        return np.ascontiguousarray(chosen, np.float32)

    def _check_length(self, number: int, row: Sequence[int]) -> None:
        if len(row) > self.wish.tokens_max:
            raise self._too_long(number, f"{len(row)} tokens", str(self.wish.tokens_max))

    def _too_long(self, number: int, has: str, most: str) -> PromptTooLong:
        return PromptTooLong(f"text {number} has {has}, the most this model reads is {most}; cut it", param="input")


def prepare(package: ModelPackage, signature: Signature, bounds: Bounds) -> Embedder | None:
    """None where the model does not say that it embeds. Blocks: the tokenizer is read. Raises `RefusedModel`."""
    wish = package.config.embed
    if wish is None:
        return None
    path = Place(home(package.path), bounds).file(wish.tokenizer)
    try:
        cutting, whole = load_tokenizer(path), load_tokenizer(path)
    except ImportError as error:
        raise RefusedModel(f"[embed] needs {error.name}: pip install 'tidemill[data]'") from error
    for each in (cutting, whole):
        each.no_padding()
    cutting.enable_truncation(wish.tokens_max)
    whole.no_truncation()
    return Embedder(wish, signature, cutting, whole)


def groups(lengths: Sequence[int], rows_max: int, places_max: int, waste_max: float = WASTE_MAX) -> list[list[int]]:
    """Which texts of these `lengths` run together: their places in `lengths`, short ones with short ones.

    A group has at most `rows_max` texts and, padded, `places_max` tokens (one text may have more), of which no more
    than `waste_max` are padding.
    """
    made: list[list[int]] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[place]  # so far, for they come by length
        group = made[-1] if made else []
        places = longest * (len(group) + 1)
        full = len(group) >= rows_max or places > places_max or tokens + longest < (1.0 - waste_max) * places
        if not group or full:
            made.append([place])
            tokens = longest
        else:
            group.append(place)
            tokens += longest
    return made


def _output(wish: Embedding, signature: Signature) -> TensorSpec:
    outputs = {spec.name: spec for spec in signature.outputs if spec.datatype in FLOATS}
    if wish.output:
        if wish.output not in outputs:
            raise RefusedModel(f"[embed] names the output {wish.output!r}; the model has {', '.join(outputs)}")
        chosen = outputs[wish.output]
    else:
        flat = [spec for spec in outputs.values() if spec.shape is not None and len(spec.shape) == 2]
        deep = [spec for spec in outputs.values() if spec.shape is not None and len(spec.shape) == 3]
        if len(flat) != 1 and not deep:
            raise RefusedModel(
                f"[embed] names no output, and of {', '.join(outputs)} none is the only one that it can be"
            )
        chosen = flat[0] if len(flat) == 1 else deep[0]
    if chosen.shape is not None and len(chosen.shape) not in (2, 3):
        raise RefusedModel(f"[embed]: the output {chosen} is neither [N, D] nor [N, T, D]")
    return chosen
