"""What a method that looks at the whole model works with; runs in the command line's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidemill.compress import pipeline, rollback
from tidemill.compress.capture import Capture, DataLike, Stage, stages
from tidemill.compress.evaluate import Judge, Quality
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.method import Outcome
from tidemill.compress.moments import Captured
from tidemill.compress.pipeline import Progress, Settings, Solved
from tidemill.compress.task import Solver


@dataclass(eq=False)
class Workbench:
    """`graph` is the model as it is now (after a recipe's earlier steps), `original` as it was given; neither is to be
    changed in place: copy. `judge` measures a graph on the held-out rows; `match` says which layers a step is for."""

    original: Graph
    graph: Graph
    data: DataLike
    settings: Settings
    judge: Judge | None = None
    match: Callable[[Layer], bool] | None = None

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def progress(self) -> Progress | None:
        return self.settings.progress

    def layers(self) -> list[Layer]:
        """Those of the graph that the step is for."""
        return [layer for layer in self.graph.layers() if self.match is None or self.match(layer)]

    def stages(self, layers: Sequence[Layer] | None = None) -> Iterator[tuple[Stage, dict[str, list[Captured]]]]:
        """Each stage of `layers` (None: of the step's) with the moments of its layers, one for each group, as the graph
        is now. One pass over the data for all."""
        todo = stages(self.layers() if layers is None else layers)
        with Capture(self.graph, None, todo, self.data, self.settings.work, threads=self.settings.threads,
                     held_rows_max=self.settings.held_rows_max) as capture:  # fmt: skip
            for stage in todo:
                yield stage, capture.take(stage, changes=False)

    def moments_of(self, layers: Sequence[Layer]) -> dict[str, list[Captured]]:
        """By layer name, one for each group. A pass over the data: for many layers use `stages`, which holds the
        moments of one stage at a time."""
        return {name: found for _, each in self.stages(layers) for name, found in each.items()}

    def solve(
        self, solver: Solver, options: Mapping[str, Any], layers: Sequence[Layer] | None = None, **changes: Any
    ) -> Solved:
        """The layer-wise engine on `layers` (None: the step's). `changes` are of `Settings`: sequential="off", say."""
        chosen = self.layers() if layers is None else layers
        settings = replace(self.settings, **changes)
        return pipeline.layerwise(self.graph, self.data, solver, chosen, options, settings)

    def layerwise(
        self,
        solver: Solver,
        match: Callable[[Layer], bool] | None = None,
        options: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Outcome:
        """`solve`, as the outcome of a method."""
        layers = [layer for layer in self.layers() if match is None or match(layer)]
        return outcome(self.solve(solver, options or {}, layers, **changes))

    def quality(self, graph: Graph) -> Quality:
        """On the held-out rows. Raises `MetricFailed`."""
        if self.judge is None:
            raise RuntimeError("this workbench was made without a metric")
        return self.judge.quality(graph)

    def kept(self, graph: Graph) -> float:
        """The share of the original's metric."""
        quality = self.quality(graph)
        return 1.0 if self.judge is None else self.judge.compare(quality).kept

    def size_bytes(self, graph: Graph) -> int:
        """On disk."""
        return graph.size_bytes


def outcome(solved: Solved, graph: Graph | None = None, reverted: Sequence[str] = ()) -> Outcome:
    """For the report; `graph` and `reverted` are those of a rollback."""
    gone = set(reverted)
    return Outcome(
        graph or solved.graph,
        {layer.name: result for layer, result in solved.results.items() if layer.name not in gone},
        notes=(
            *solved.notes,
            *(f"{name} got its own weights back, to keep the metric" for name in reverted),
            *((rollback.CHOSEN,) if reverted else ()),
        ),
        left=solved.refused,
    )
