"""Rows to learn from and rows to judge by, as batches that the model takes; runs in the command line's process."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tidemill.core.errors import BadData
from tidemill.core.tensor import Array, Signature

Row: TypeAlias = dict[str, Array]
"""Each input's value for one row: without the batch dimension, unless the model has none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken of a source, and how.

    `rows_max` rows at most are learned from. Where the source does not say itself which rows are held out, a share of
    `held` is; of those that it names, `held_max` at most are taken. Integers that a picture is made of become
    `(value / 255 - mean) / deviation`, where the model takes floats.
    """

    rows_max: int = 1_000
    held_max: int = 10_000
    held: float = 0.3
    batch: int = 16
    tokens_max: int = 128
    seed: int = 0
    bytes_max: int = 4 * 2**30
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    @property
    def rows_wanted(self) -> int:
        """Of a source that does not say which rows are held out."""
        return math.ceil(self.rows_max / (1 - self.held))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Iterating gives batches {input: array}, each time the same ones; row i is the i-th row that comes.

    Rows of one shape come together. Texts come by their length, padded to the longest of their batch. `batch` is 0 for
    a model without a batch dimension: a row is a call. `labels` are [rows], or [rows, rows] where they tell of pairs.
    `present` is the input that is 0 where a text is padded.
    """

    rows: Sequence[Row]
    batch: int
    pads: Mapping[str, int] = field(default_factory=dict)
    labels: Array | None = None
    examples: tuple[str, ...] = ()
    present: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        start = 0
        for end in self._ends():
            some = self.rows[start:end]
            start = end
            yield dict(some[0]) if not self.batch else {name: self._stacked(name, some) for name in some[0]}

    def _ends(self) -> Iterator[int]:
        start = 0
        for index in range(1, len(self.rows) + 1):
            last = index == len(self.rows)
            full = index - start >= max(self.batch, 1)
            if last or full or (not self.pads and shapes(self.rows[index]) != shapes(self.rows[start])):
                yield index
                start = index

    def _stacked(self, name: str, rows: Sequence[Row]) -> Array:
        arrays = [row[name] for row in rows]
        if name not in self.pads:
            return np.stack(arrays)
        stacked = np.full((len(arrays), max(len(array) for array in arrays)), self.pads[name], arrays[0].dtype)
        for row, array in enumerate(arrays):
            stacked[row, : len(array)] = array
        return stacked

    @property
    def pairwise(self) -> bool:
        return self.labels is not None and self.labels.ndim == 2

    def sha256(self) -> str:
        """Of every value of every row."""
        digest = hashlib.sha256()
        for row in self.rows:
            for name in sorted(row):
                array = row[name]
                digest.update(f"{name} {array.dtype} {array.shape} ".encode())
                digest.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """`fit` is learned from; `held` is not, and every figure of quality is over it. `kind` is "text", "pictures" or
    "arrays"; `notes` are sentences for the report."""

    fit: Rows
    held: Rows
    source: str
    kind: str
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> Array | None:
        """Of the rows held out."""
        return self.held.labels

    def sha256(self) -> str:
        return hashlib.sha256(f"{self.fit.sha256()} {self.held.sha256()}".encode()).hexdigest()


def load(
    source: str | Path | Iterable[Any],
    signature: Signature,
    tokenizer: Path | None = None,
    limits: Limits | None = None,
    *,
    held: str | Path | Iterable[Any] | None = None,
    classes: Sequence[str] = (),
) -> Data:
    """Rows for a model of `signature`.

    They come from a file .npz, .npy, .csv or .txt, from a folder of pictures or texts (a folder in it is a class), from
    what "module:function" returns, or from an iterable of feeds or of (feeds, labels).

    `tokenizer` is the tokenizer.json that makes texts into tokens. Labels are the array `labels`, the column `label`,
    or, beside a file NAME.txt, NAME.labels.npy; `classes` are the names of classes in the model's order. `held` is
    another source, all of whose rows are held out, while all of `source` are learned from. Raises `BadData`,
    `MissingPart`.
    """
    from tidemill.compress.sources import Reading, open_source

    limits = limits or Limits()
    reading = Reading(signature, tokenizer, limits, tuple(classes))
    opened = open_source(source, reading)
    if held is None:
        fit, kept = split(opened.count, opened.held, limits)
        judged = opened
    else:
        judged = open_source(held, reading)
        chance = np.random.default_rng(limits.seed)
        fit = _some(np.arange(opened.count), limits.rows_max, chance)
        kept = _some(np.arange(judged.count), limits.held_max, chance)
    notes = [*opened.notes, *(judged.notes if judged is not opened else ())]
    learned, apart = opened.rows(fit), judged.rows(kept)
    for rows, count, what in ((learned, len(fit), "learned from"), (apart, len(kept), "held out")):
        if not len(rows):
            raise BadData(
                f"{_named(source)} gives {count} rows to be {what}, and the model takes {reading.batch} at once; give"
                " more rows"
            )
        if len(rows) < count:
            notes.append(
                f"{count - len(rows)} rows {what} are left out: the model takes exactly {reading.batch} at once"
            )
    told = _named(source) if held is None else f"{_named(source)}, held out {_named(held)}"
    return Data(learned, apart, told, opened.kind, tuple(notes))


def split(count: int, held: Array | None, limits: Limits) -> tuple[Array, Array]:
    """Places of the rows to learn from and of those held out; the same for the same seed. Raises `BadData`."""
    chance = np.random.default_rng(limits.seed)
    if held is not None:
        fit, kept = np.flatnonzero(~held), np.flatnonzero(held)
        if not len(fit) or not len(kept):
            raise BadData(
                f"`held` marks {len(kept)} of {count} rows; some must be left to learn from, and some to judge by"
            )
        return _some(fit, limits.rows_max, chance), _some(kept, limits.held_max, chance)
    if count < 2:
        raise BadData(f"there are {count} rows; at least two are needed, one to learn from and one to judge by")
    order = chance.permutation(count)[: limits.rows_wanted]
    kept_count = min(max(1, round(len(order) * limits.held)), len(order) - 1)
    return np.sort(order[kept_count:][: limits.rows_max]), np.sort(order[:kept_count])


def _some(places: Array, most: int, chance: np.random.Generator) -> Array:
    return places if len(places) <= most else np.sort(chance.choice(places, most, replace=False))


def _named(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def shapes(row: Row) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in row.values())
