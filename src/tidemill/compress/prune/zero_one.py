"""`--method zero-one`: what is kept is a 0-1 programme, solved round after round; runs in the command line's process.

Variables: a level for every layer (single weights, N:M), blocks, or units that leave the tensors. Constraints
y_i(w) ≤ 0: the size, the loss of each of the model's answers, the time. From the dense model on, each round makes
everything linear around where the model is (second-order saliencies, the others making up for what goes, times what a
layer's error does to the answers), solves the programme by HiGHS, repairs what rounding broke by the cheapest flips,
and makes the model. `form=classic` takes the least step for one answer at a time instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Method, Option, Outcome
from tidemill.compress.prune.levels import Levels
from tidemill.compress.prune.pooled import pooled
from tidemill.compress.prune.rounds import Asked, search, search_classic
from tidemill.compress.prune.slices import Slice
from tidemill.compress.prune.space import Space
from tidemill.compress.prune.surgeon import SEARCHES
from tidemill.compress.prune.tiles import Tiles
from tidemill.compress.prune.unit_space import Units
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe

UNITS = ("weights", "pattern", "blocks", "channels", "heads", "ffn", "units")

LEAVE = UNITS[3:]

OPTIONS = {
    "size": Option(float, 0.5, "share of the step's weights that may stay", 0.02, 1.0),
    "unit": Option(str, "weights", "what is kept or dropped: weights, pattern (N of every M), blocks; and what leaves"
        " the tensors: channels, heads, ffn (columns), units (all three)", choices=UNITS),
    "loss": Option(
        float, 0.0, "share of its variance that each answer may lose, the model then being made as small as that"
        " allows; 0: as little as the size allows", 0.0, 1.0,
    ),
    "time": Option(
        float, 1.0, "share of the time that the model may take, measured; for units that leave the tensors", 0.02, 1.0
    ),
    "form": Option(
        str, "programme", "classic takes the least step for one answer at a time", choices=("programme", "classic")
    ),
    "rounds": Option(int, 2, "how often the programme is made anew around the last model, at most", 1, 20),
    "group": Option(int, 4, "M of unit=pattern", 2, 16),
    "rows": Option(int, 16, "rows of a block", 1, 4096),
    "columns": Option(int, 16, "columns of a block", 1, 4096),
    "slice": Option(
        int, 0, "rows of those learned from that the answers are compared on; 0: by the model's size", 0, 10_000
    ),
    "search": Option(str, "auto", "how the last model's masks are found, within a layer", choices=SEARCHES),
    "damping": Option(float, DAMPING, "what is added to H's diagonal, as a share of its mean", 1e-6, 10.0),
}  # fmt: skip


def run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    """Embeddings are left as they are: a look-up has no H. Raises `InvalidRecipe`, `BadData`."""
    with pooled(bench) as shared:
        return _run(shared, options)


def _run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    seen = Slice(bench, int(options["slice"]))
    space = _space(replace(bench, data=seen.rest), seen, options)
    if not space.total:
        raise InvalidRecipe("zero-one: the step is for no layer with a matrix or a kernel")
    time = float(options["time"])
    asked = Asked(float(options["size"]), float(options["loss"]) or float("inf"), time if time < 1 else float("inf"))
    if options["form"] == "classic":
        found = search_classic(space, seen, bench.graph, asked)
    else:
        found = search(space, seen, bench.graph, asked, int(options["rounds"]))
    best = found.best()
    if best is None:
        return [Outcome(bench.graph.copy(), notes=tuple(found.notes))]
    outcome = space.make(best.taken, str(options["search"]), bench)
    lost = seen.lost(outcome.graph)
    notes = [*found.notes, f"taken: {best.words}; made with care, and on all rows, it loses {lost.mean():.4f}"]
    if asked.time <= 1:
        notes.append(f"it takes {space.seconds(outcome.graph):.2f} of the time")
    if lost.max() > asked.loss:
        notes.append(f"{seen.names[int(lost.argmax())]} loses {lost.max():.4f}, more than {asked.loss:.4f}")
    return [replace(outcome, notes=(*outcome.notes, *notes, *space.words(best.taken)))]


def _space(bench: Workbench, seen: Slice, options: Mapping[str, Any]) -> Space:
    damping, size = float(options["damping"]), float(options["size"])
    timed = float(options["time"]) < 1
    if options["unit"] in LEAVE:
        return Units(bench, seen, str(options["unit"]), damping, timed)
    if timed:
        raise InvalidRecipe(
            f"unit={options['unit']} changes no shape, and zeros take as long as other weights: leave out `time`, or"
            f" take one of {', '.join(LEAVE)}"
        )
    if options["unit"] == "blocks":
        return Tiles(bench, seen, int(options["rows"]), int(options["columns"]), damping)
    return Levels(bench, seen, size, damping, int(options["group"]) if options["unit"] == "pattern" else 0)


METHOD = Method(
    "zero-one",
    "a 0-1 programme keeps or drops weights, N:M patterns, blocks or units, within limits on size, loss and time",
    OPTIONS,
    run=run,
)
