"""Takes the moments of each stage's inputs, in the original model and in the one compressed so far, over all rows.

Runs in the command line's process. A stage is the layers that read one tensor. Memory is that of one batch and of
O(K²) sums for each stage; the rows themselves wait on disk (`walk.py`).
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from tidemill.compress import moments, unfold
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.walk import Spool, Walk
from tidemill.core.errors import BadData
from tidemill.core.tensor import Array

PLACES_MAX = 100_000
"""A convolution sees more places than its moments need: about so many of the rows to learn from are taken, evenly."""
HELD_ROWS_MAX = 64
"""Held-out rows that a layer's error is reported on."""


class RowsLike(Protocol):
    """What `data.Rows` is to the capture: batches of feeds, again and again the same."""

    def __iter__(self) -> Iterator[dict[str, Array]]: ...


class DataLike(Protocol):
    @property
    def fit(self) -> RowsLike: ...

    @property
    def held(self) -> RowsLike: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers with the same input tensor (`key`); of layers that share weights only the first is in a stage, and
    `shared` are the others, by the first one's name."""

    key: str
    layers: tuple[Layer, ...]
    shared: dict[str, tuple[Layer, ...]]

    @property
    def work(self) -> int:
        """About how long it takes next to other stages."""
        return sum(layer.size * layer.shape[1] + 1 for layer in self.layers)


def stages(layers: Sequence[Layer]) -> list[Stage]:
    """In topological order of their inputs."""
    by_name = {layer.name: layer for layer in layers}
    first: dict[str, Layer] = {}
    for layer in layers:
        # An embedding takes any error alike; a matrix on the same weights says what matters.
        held = first.get(layer.weight)
        if held is None or (held.op == "Gather" and layer.op != "Gather"):
            first[layer.weight] = layer
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        if first[layer.weight] is layer:
            groups.setdefault(layer.stage_key, []).append(layer)
    return [
        Stage(
            key,
            tuple(group),
            {
                layer.name: tuple(by_name[name] for name in layer.shared if name in by_name)
                for layer in group
                if layer.shared
            },
        )
        for key, group in groups.items()
    ]


class Capture:
    """Goes through `stages` in order, once. Use as a context: it gives its disk space back.

    `current` is the graph that is being compressed, changed by the caller between two stages; None when every stage
    shall see the original alone.
    """

    def __init__(
        self,
        original: Graph,
        current: Graph | None,
        stages: Sequence[Stage],
        data: DataLike,
        work: Path,
        *,
        threads: int = 2,
        held_rows_max: int = HELD_ROWS_MAX,
        places_max: int = PLACES_MAX,
    ) -> None:
        self._stages = list(stages)
        self._current = current
        self._places_max = places_max
        self._work = work / f"spool-{os.getpid()}-{id(self):x}"
        _sweep(work)
        feeds = Spool(self._work / "feeds")
        self._masks: list[Array | None] = []
        self._sizes: list[int] = []
        digest = hashlib.sha256()
        try:
            self._fit_batches = self._take(feeds, original, data.fit, None, digest)
            if not sum(self._sizes):
                raise BadData("there are no rows to calibrate with; give a file with at least a few dozen")
            self.fit_rows = sum(self._sizes)
            self._take(feeds, original, data.held, held_rows_max, digest)
        except BaseException:
            self.close()
            raise
        self.digest = digest.hexdigest()
        """Of all rows that are looked at, in order."""
        self._threads = threads
        self._again = feeds.fork(self._work / "again", len(self._sizes)) if any(s.shared for s in stages) else None
        self._walk = Walk(original, [stage.key for stage in stages], feeds, len(self._sizes), threads)
        self._other: Walk | None = None
        self._pending: list[tuple[Stage, bool]] = []

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    def _take(self, spool: Spool, graph: Graph, rows: RowsLike, rows_max: int | None, digest: Any) -> int:
        declared = {each.name: each for each in graph.model.graph.input}
        wanted = list(declared)
        left = rows_max
        single = getattr(rows, "batch", None) == 0  # a model without a batch dimension: a row is a call
        # Rows may come in an order, of their lengths say: those that are looked at are taken from all over.
        every = 1 if rows_max is None or not isinstance(rows, Sized) else max(1, len(rows) // rows_max)
        for number, feeds in enumerate(rows):
            if number % every:
                continue
            batch = {name: np.asarray(feeds[name]) for name in wanted if name in feeds}
            missing = [name for name in wanted if name not in feeds]
            if missing:
                raise BadData(f"the data have no {missing[0]!r}, which the model takes; they have {', '.join(feeds)}")
            size = 1 if single else next((len(a) for a in batch.values() if a.ndim), 1)
            if left is not None and size > left:
                batch = {name: a[:left] if a.ndim and len(a) == size else a for name, a in batch.items()}
                size = left
            if not size:
                break
            if left is not None:
                left -= size
            start = sum(self._sizes)
            for name, array in batch.items():
                _refuse_shape(declared[name], array)
                _refuse_nan(name, array, start)
                digest.update(f"{name}{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.ndim else array.tobytes())
            spool.put(len(self._sizes), batch)
            self._masks.append(unfold.mask_of(batch))
            self._sizes.append(size)
        digest.update(b"|")
        return len(self._sizes)

    def skip(self, stage: Stage, *, changes: bool) -> None:
        """Nothing is asked of `stage`. `changes` says that the caller changes layers of it."""
        self._pending.append((stage, changes))

    def take(self, stage: Stage, *, changes: bool = True) -> dict[str, list[Captured]]:
        """The moments of each layer of the next stage, one for each of its groups. `changes` says that the caller will
        change layers of it before the next call."""
        # Stages that were skipped are walked now and not in one leap: a run that was resumed must see the same bits as
        # one that was not, and how onnxruntime fuses a stretch decides the last of them.
        for earlier, changed in self._pending:
            for _ in self._pairs(earlier.key):
                pass
            self._mark(changed)
        self._pending.clear()
        found = self._sums(stage)
        self._mark(changes)
        return found

    def _mark(self, changed: bool) -> None:
        if changed and self._other is None and self._current is not None:
            self._other = self._walk.fork(self._current, self._work / "current")

    def _pairs(self, key: str) -> Iterator[tuple[Array, Array | None]]:
        """(what the compressed model gives, what the original gave where that is another run) in every batch."""
        if self._other is None:
            for array in self._walk.stretch(key):
                yield array, None
            return
        for original, current in zip(self._walk.stretch(key), self._other.stretch(key), strict=True):
            yield current, original

    def _sums(self, stage: Stage) -> dict[str, list[Captured]]:
        crossed = self._other is not None
        graph = self._walk.graph
        of = {layer.name: unfold.unfolding(graph, layer) for layer in stage.layers if layer.op != "Gather"}
        kinds = set(of.values())
        fit = {kind: moments.Sums(kind.groups, kind.features, crossed) for kind in kinds}
        held = {kind: moments.Sums(kind.groups, kind.features) for kind in kinds}
        for batch, (now, before) in enumerate(self._pairs(stage.key)):
            learns = batch < self._fit_batches
            for kind in kinds:
                step = max(1, kind.places(now.shape) * self.fit_rows // self._places_max) if kind.kernel else 1
                mask = self._masks[batch]
                rows = kind.rows(now, mask, step)
                originals = kind.rows(before, mask, step) if learns and before is not None else None
                if not (fit if learns else held)[kind].add(rows, originals):
                    raise self._not_finite(stage, batch, now, before)
        found: dict[str, list[Captured]] = {}
        for layer in stage.layers:
            if layer.op == "Gather":
                plain = moments.identity(layer.shape[1], self.fit_rows)
                found[layer.name] = [Captured(plain, plain)]
                continue
            kind = of[layer.name]
            learned, apart = fit[kind], held[kind]
            others = [each for each in stage.shared.get(layer.name, ()) if each.op != "Gather"]
            if others:
                learned, apart = copy.deepcopy(learned), copy.deepcopy(apart)
                self._pool(others, learned, apart)
            if not learned.count:
                raise BadData(f"the data give layer {layer.name!r} no input at all: every token is masked out")
            found[layer.name] = [
                Captured(each, other, *(cross or (None, None)))
                for each, other, cross in zip(learned.moments(), apart.moments(), learned.crossed(), strict=True)
            ]
        return found

    def _pool(self, layers: Sequence[Layer], fit: moments.Sums, held: moments.Sums) -> None:
        """Add what the original model gives to other layers on the same weights: they are solved together."""
        if self._again is None:
            return
        for at, layer in enumerate(layers):
            kind = unfold.unfolding(self._walk.graph, layer)
            folder = self._work / f"again-{layer.weight.encode().hex()[:40]}-{at}"
            walk = Walk(self._walk.graph, [layer.input], self._again.fork(folder, len(self._sizes)),
                        len(self._sizes), self._threads)  # fmt: skip
            for batch, values in enumerate(walk.stretch(layer.input)):
                learns = batch < self._fit_batches
                step = max(1, kind.places(values.shape) * self.fit_rows // self._places_max) if kind.kernel else 1
                rows = kind.rows(values, self._masks[batch], step)
                if not (fit if learns else held).add(rows, rows if learns and fit.cross is not None else None):
                    raise self._not_finite(Stage(layer.input, (layer,), {}), batch, values, None)
            shutil.rmtree(folder, ignore_errors=True)

    def _not_finite(self, stage: Stage, batch: int, now: Array, before: Array | None) -> BadData:
        of_original = before is None or not (np.abs(before) <= moments.MAGNITUDE_MAX).all()
        values = now if before is None or not of_original else before
        bad = ~(np.abs(values) <= moments.MAGNITUDE_MAX)
        shown = self._masks[batch]
        if shown is not None and values.ndim >= 2 and values.shape[:2] == shown.shape:
            bad[~shown] = False
        rows = np.flatnonzero(bad.any(axis=tuple(range(1, values.ndim)))) if values.ndim > 1 else np.array([0])
        learns = batch < self._fit_batches
        before_it = self._sizes[:batch] if learns else self._sizes[self._fit_batches : batch]
        row = sum(before_it) + int(rows[0] if len(rows) else 0)
        kind = "calibration" if learns else "held-out"
        who = "the model" if before is None or of_original else "the model as compressed so far"
        return BadData(
            f"{kind} row {row} makes {who} give NaN, infinity or more than 1e15 in {stage.key!r}, the input of"
            f" {stage.layers[0].name!r}; leave the row out, or look for an overflow in the model"
        )


def _refuse_shape(declared: Any, array: Array) -> None:
    kind = declared.type.tensor_type
    if not kind.HasField("shape"):
        return
    sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
    fits = len(sides) == array.ndim and all(
        side in {None, 0, have} or at == 0 for at, (side, have) in enumerate(zip(sides, array.shape, strict=False))
    )
    if not fits:
        shape = ", ".join("any" if side is None else str(side) for side in sides)
        raise BadData(f"the data give {declared.name!r} as {list(array.shape)}, and the model takes [{shape}]")


def _refuse_nan(name: str, array: Array, start: int) -> None:
    if array.dtype.kind in "OUS":
        raise BadData(f"the model takes text in {name!r}; only models of numbers are compressed")
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    axes = tuple(range(1, array.ndim))
    row = start + int(np.flatnonzero(~np.isfinite(array).all(axis=axes))[0]) if array.ndim else start
    raise BadData(f"row {row} of the data has NaN or infinity in {name!r}; leave it out or mend it")


def _sweep(work: Path) -> None:
    """Remove what runs left here that were killed."""
    for folder in work.glob("spool-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
