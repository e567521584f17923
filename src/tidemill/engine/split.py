"""A request with more rows than a batch, asked in parts and answered whole; state of the lane's loop.

It waits in the queue as one entry, from whose front a batch is cut each time that an engine is free: so the queue
counts requests, and nothing is made before it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from tidemill.core.tensor import Array, Tensors
from tidemill.engine.run_batch import Entry


def whole(parts: list[Tensors], rows: list[int]) -> dict[str, Array] | None:
    """The answers of the parts as one; None when one has not as many rows as were asked."""
    for part, count in zip(parts, rows, strict=True):
        if any(array.ndim == 0 or array.shape[0] != count for array in part.values()):
            return None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Split:
    """Ties the parts of `entry` to the future that the caller holds: the first error is the whole's, and takes the
    other parts back; so does a caller that goes. `rest` is what waits in the queue."""

    def __init__(self, entry: Entry, again: Callable[[Entry], None]) -> None:
        """`again` asks `entry` at once, for a model that does not keep rows apart after all."""
        self._entry = entry
        self._again = again
        self._parts: list[Entry] = []
        self._open = 0
        self.rest = self._part(entry.inputs, entry.rows)
        self.rest.split = self
        entry.future.add_done_callback(self._take_back)

    @property
    def started(self) -> float:
        """When the first of the parts began; all have been cut by then."""
        return min(part.started for part in self._parts)

    def cut(self, rows: int) -> Entry:
        """The next part, of `rows`, which are fewer than `rest` has."""
        rest = self.rest
        last = self._parts.pop()
        part = self._part({name: array[:rows] for name, array in rest.inputs.items()}, rows)
        part.counts = False
        self._parts.append(last)
        rest.inputs = {name: array[rows:] for name, array in rest.inputs.items()}
        rest.rows -= rows
        return part

    def _part(self, inputs: Tensors, rows: int) -> Entry:
        entry = self._entry
        future: asyncio.Future[Tensors] = entry.future.get_loop().create_future()
        future.add_done_callback(self._ended)
        part = Entry(inputs, entry.outputs, rows, entry.key, entry.deadline, entry.arrived, future)
        part.length = entry.length
        part.signature = entry.signature
        part.traceparent = entry.traceparent
        self._parts.append(part)
        self._open += 1
        return part

    def _ended(self, future: asyncio.Future[Tensors]) -> None:
        self._open -= 1
        error = None if future.cancelled() else future.exception()
        mine = self._entry.future
        if mine.done():
            return
        if future.cancelled():
            mine.cancel()
        elif error is not None:
            mine.set_exception(error)
        elif not self._open:
            answer = whole([part.future.result() for part in self._parts], [part.rows for part in self._parts])
            if answer is not None:
                mine.set_result(answer)
            else:
                mine.remove_done_callback(self._take_back)
                self._again(self._entry)

    def _take_back(self, future: asyncio.Future[Tensors]) -> None:
        for part in self._parts:
            part.future.cancel()
        self._parts = []
