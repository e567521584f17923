"""Which waiting requests run together, and how they are joined and parted; pure functions of plain values."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from tidemill.core.tensor import Array, Tensors


class Waiting(Protocol):
    """What the choice looks at: `key` is equal for those that can be joined, None for one that runs singly. `length` is
    0 where nothing is padded."""

    key: Hashable | None
    rows: int
    length: int


def joining_key(inputs: Tensors, outputs: tuple[str, ...]) -> Hashable:
    """Equal for requests whose tensors differ in dimension 0 only and that want the same outputs."""
    if len(inputs) == 1:
        for array in inputs.values():
            return (array.shape[1:], outputs)
    return (tuple((name, array.shape[1:]) for name, array in sorted(inputs.items())), outputs)


def take(
    waiting: deque[Any], rows_max: int, requests_max: int, waste_max: float = 0.0, passing: bool = False
) -> list[Any]:
    """Remove the next batch from `waiting` (of `Waiting`, oldest first, not empty).

    The oldest always goes. It is joined by the requests right behind it while their keys are equal, all rows together
    stay within `rows_max`, they are no more than `requests_max`, and padding them to one length makes no more than
    `waste_max` of the places padding; none overtakes, so none starves. With `passing` those with another key are
    passed over: one that is joined overtakes them, but no batch runs before theirs for it.
    """
    first = waiting.popleft()
    batch = [first]
    key, total = first.key, first.rows
    if key is None:
        return batch
    longest, places = first.length, first.length * first.rows
    passed: list[Any] = []
    while waiting and len(batch) < requests_max:
        following = waiting[0]
        if following.key != key and passing:
            passed.append(waiting.popleft())
            continue
        if following.key != key or total + following.rows > rows_max:
            break
        if following.length != longest:
            longer = max(longest, following.length)
            if places + following.length * following.rows < (1.0 - waste_max) * longer * (total + following.rows):
                break
            longest = longer
        total += following.rows
        places += following.length * following.rows
        batch.append(waiting.popleft())
    waiting.extendleft(reversed(passed))
    return batch


def at_hand(waiting: deque[Any], rows_max: int, passing: bool = False) -> int:
    """The rows of the batch that `take` would make now, padding left aside; 0 when what is oldest runs singly."""
    key, total = waiting[0].key, 0
    if key is None:
        return 0
    for each in waiting:
        if each.key != key and passing:
            continue
        if each.key != key or total + each.rows > rows_max:
            break
        total += each.rows
    return total or rows_max


def worth_waiting(rows: int, rows_max: int, preferred: Sequence[int]) -> bool:
    """Whether a batch of `rows` could become one that is wanted more: a larger preferred size, or a full one."""
    return 0 < rows < max((size for size in preferred if size <= rows_max), default=rows_max)


def rows_wanted(rows: int, rows_max: int, preferred: Sequence[int]) -> int:
    """The bound of the next batch when `rows` are at hand: the largest preferred size that they fill, else `rows_max`.

    Triton's rule: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/batcher.html
    """
    return max((size for size in preferred if size <= rows), default=rows_max)


def join(parts: list[Tensors]) -> dict[str, Array]:
    """One set of tensors with all rows, in order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def part(whole: Tensors, rows: list[int]) -> list[dict[str, Array]] | None:
    """Each request's rows of the joined answer (views); None when an output has not as many rows as went in."""
    total = sum(rows)
    if any(array.ndim == 0 or array.shape[0] != total for array in whole.values()):
        return None
    ends = list(accumulate(rows))
    columns = [[array[end - count : end] for end, count in zip(ends, rows, strict=True)] for array in whole.values()]
    names = list(whole)
    if len(names) == 1:
        name = names[0]
        return [{name: each} for each in columns[0]]
    return [dict(zip(names, each, strict=True)) for each in zip(*columns, strict=True)]
