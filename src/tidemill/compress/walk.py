"""Runs a graph from one stage to the next over all batches, each node once; in between, tensors wait on disk.

Runs in the command line's process. Where the tensors that wait would take more than `SPOOL_BYTES_MAX`, nothing is kept
there, and the next stretch starts from further back.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.compress import cut
from tidemill.compress.graph import Graph
from tidemill.compress.layers import reads
from tidemill.core.errors import BadData, DiskFull
from tidemill.core.tensor import Array
from tidemill.engine.onnx import ORT_FAILURES, first_line

SPOOL_BYTES_MAX = 8 << 30


class Spool:
    """Tensors of every batch in a folder of their own, which goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: dict[str, np.dtype[Any]] = {}
        self._files: dict[str, str] = {}
        self._count = 0
        folder.mkdir(parents=True)

    def put(self, batch: int, tensors: Mapping[str, Array]) -> None:
        """Raises `DiskFull`."""
        for name, array in tensors.items():
            if name not in self._files:
                self._count += 1
                self._files[name] = str(self._count)
            self.kinds[name] = array.dtype
            try:
                np.save(self._path(name, batch), array, allow_pickle=False)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                raise DiskFull(
                    f"there is no room left in {self.folder} for the tensors between two layers; make room, or name "
                    "another work folder, and run again: layers that were finished are kept"
                ) from error

    def get(self, batch: int, names: Iterable[str]) -> dict[str, Array]:
        return {name: np.load(self._path(name, batch), allow_pickle=False) for name in names}

    def keep(self, names: set[str], batches: int) -> None:
        """Forget all others."""
        for name in [name for name in self._files if name not in names]:
            for batch in range(batches):
                self._path(name, batch).unlink(missing_ok=True)
            del self._files[name], self.kinds[name]

    def fork(self, folder: Path, batches: int) -> Spool:
        """Another spool with the same tensors, which takes no room until either changes."""
        other = Spool(folder)
        other.kinds, other._files, other._count = dict(self.kinds), dict(self._files), self._count
        for name in self._files:
            for batch in range(batches):
                try:
                    os.link(self._path(name, batch), other._path(name, batch))
                except OSError:  # a file system without links
                    shutil.copyfile(self._path(name, batch), other._path(name, batch))
        return other

    def _path(self, name: str, batch: int) -> Path:
        return self.folder / f"{self._files[name]}.{batch}.npy"


class Walk:
    """`graph` may change between two stretches, but for tensors that were made already. `goals` are the tensors that
    will be asked for, stretch by stretch; `spool` holds the feeds of `batches` batches, and is this walk's own."""

    def __init__(self, graph: Graph, goals: Sequence[str], spool: Spool, batches: int, threads: int = 2) -> None:
        self.graph = graph
        self.spool = spool
        self.batches = batches
        self._goals = list(goals)
        self._threads = threads

    def fork(self, graph: Graph, folder: Path) -> Walk:
        """The same place on another graph, which has made the same tensors so far."""
        return Walk(graph, self._goals, self.spool.fork(folder, self.batches), self.batches, self._threads)

    def stretch(self, goal: str) -> Iterator[Array]:
        """The next goal's tensor in every batch. To be used up."""
        for made in self.stretches([goal]):
            yield made[goal]

    def stretches(self, goals: Sequence[str]) -> Iterator[dict[str, Array]]:
        """The next goals' tensors in every batch, all of a batch at a time. To be used up."""
        have = set(self.spool.kinds)
        self._goals = self._goals[max(self._goals.index(goal) for goal in goals) + 1 :]
        nodes = cut.needed(self.graph, goals, have)
        made = have | {*goals} | {name for node in nodes for name in node.output if name}
        later = cut.needed(self.graph, self._goals, made)
        wanted = set().union(*(reads(node) for node in later)) | (set(self._goals) & made)
        kept = sorted((wanted & made) - have)
        new = list(dict.fromkeys((*kept, *(goal for goal in goals if goal not in have))))
        session = self.graph.session(new, self._threads, self.spool.kinds) if new else None
        asked = [each.name for each in session.get_inputs()] if session else []
        keeps = True
        try:
            for batch in range(self.batches):
                given = self.spool.get(batch, {*asked, *goals} & have)
                made_now = _run(session, new, {name: given[name] for name in asked}) if session else {}
                if not batch:
                    keeps = sum(made_now[name].nbytes for name in kept) * self.batches <= SPOOL_BYTES_MAX
                if keeps:
                    self.spool.put(batch, {name: made_now[name] for name in kept})
                yield {goal: made_now[goal] if goal in made_now else given[goal] for goal in goals}
        finally:
            del session
        if keeps:
            self.spool.keep(wanted & made, self.batches)


def _run(session: Any, names: list[str], feeds: dict[str, Array]) -> dict[str, Array]:
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except ORT_FAILURES as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        raise BadData(f"the model refused rows of the data ({shapes}): {first_line(error)}") from error
