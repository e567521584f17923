"""What a 0-1 search chooses among, and what a choice costs, to first order, around a point; plain values.

`levels.py`, `tiles.py` and `unit_space.py` are the spaces; `rounds.py` and `classic.py` search them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tidemill.compress.graph import Graph
from tidemill.compress.method import Outcome
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """Around the point `taken`, each answer loses lost + rises · (x − taken): `rises` [answers, variables]. `sizes`
    [variables] is how many weights stay or go with each variable: `size` is their number at x = 0. `times` is the same
    for the share of the dense model's time (1 at x = 0), None where time was not measured."""

    taken: Array
    lost: Array
    rises: Array
    sizes: Array
    size: float
    times: Array | None = None


class Space(Protocol):
    """`total` is how many weights there are in all, `sets` as in `programme.Programme`."""

    total: float
    sets: Array

    def dense(self) -> Array:
        """Nothing is dropped."""

    def uniform(self) -> Array | None:
        """The same share of every layer, where there is such a choice."""

    def kept(self, taken: Array) -> float:
        """How many weights stay."""

    def look(self, taken: Array, now: Graph) -> Local:
        """The costs around `taken`; `now` is the model made of it."""

    def near(self, taken: Array) -> Array:
        """Which variables may be taken in the step from there."""

    def mend(self, taken: Array, room: float) -> Array:
        """Where sizes are not linear: with as much more dropped as it takes to keep no more than `room` weights."""

    def seconds(self, graph: Graph) -> float:
        """What a model takes, as a share of the dense one's time; 1 where dropping changes no shape."""

    def make(self, taken: Array, search: str, bench: Workbench | None = None) -> Outcome:
        """The model, each layer fitted to what it has left, one after the other; on the data of `bench` where given."""

    def words(self, taken: Array) -> list[str]:
        """Sentences for the report."""
