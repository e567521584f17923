"""`--method unify`: from one global sparse path, several models, each pruned further; in the command line's process.

The weights as a sparse vector θ by the Lasso or the ridge, one λ for all layers; greedy exchanges from there to the k
best supports S₀ with l₁(θ) > ε; the best one refitted by least squares, layer after layer; then S₁ by pruning those of
S₀ further, and so on, while the answers keep what was asked for. What no other model beats in size and loss is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Method, Option, Outcome
from tidemill.compress.prune import paths, supports
from tidemill.compress.prune.exchange import Table, exchange
from tidemill.compress.prune.front import front
from tidemill.compress.prune.levels import Levels
from tidemill.compress.prune.paths import Path
from tidemill.compress.prune.point import Spot
from tidemill.compress.prune.pooled import pooled
from tidemill.compress.prune.slices import Slice
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array

SWAPS_MAX = 2_000
"""Exchanges between layers from each start."""

OPTIONS = {
    "models": Option(int, 5, "how many models are wanted", 1, 20),
    "first": Option(float, 0.7, "share of the step's weights that the first model keeps", 0.05, 1.0),
    "step": Option(float, 0.1, "share of the step's weights by which each next model is smaller", 0.01, 0.5),
    "keep": Option(
        float, 0.0, "share of the answers' variance that a model must keep; the search ends below it", 0.0, 1.0
    ),
    "epsilon": Option(
        float, 0.05, "supports whose sum of |θ| is no more than this share of the dense model's are left out", 0.0, 1.0
    ),
    "path": Option(str, "lasso", "how the sparse vector is found", choices=("lasso", "ridge")),
    "supports": Option(int, 5, "how many supports are kept from one model to the next", 1, 100),
    "swaps": Option(int, 8, "batches of swaps within a layer, at most", 0, 100),
    "pool": Option(int, 1, "how many of a layer's supports are bettered by swaps", 1, 4),
    "search": Option(str, "auto", "fast does without the slower second-order searches", choices=("auto", "fast")),
    "slice": Option(
        int, 0, "rows of those learned from that the answers are compared on; 0: by the model's size", 0, 10_000
    ),
    "damping": Option(float, DAMPING, "what is added to H's diagonal, as a share of its mean", 1e-6, 10.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    outcome: Outcome
    size: float
    lost: float


def run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    """Embeddings are left as they are: a look-up has no H. Raises `InvalidRecipe`, `BadData`."""
    with pooled(bench) as shared:
        return _run(shared, options)


def _run(bench: Workbench, options: Mapping[str, Any]) -> list[Outcome]:
    seen = Slice(bench, int(options["slice"]))
    bench = replace(bench, data=seen.rest)
    levels = Levels(bench, seen, float(options["first"]), float(options["damping"]))
    if not levels.total:
        raise InvalidRecipe("unify: the step is for no layer with a matrix or a kernel")
    found: dict[str, Path] = {}

    def follow(spot: Spot) -> None:
        found[spot.layer.name] = _path(spot)

    local = levels.look(levels.dense(), bench.graph, follow)
    names = [name for name in levels.names if name in levels.losses]
    table = _table(levels, names, found, local.rises)
    made, notes = _models(bench, seen, levels, names, table, found, options)
    kept = front(made, _point)
    if len(kept) < len(made):
        notes.append(f"{len(made) - len(kept)} models were beaten by others in both size and loss")
    best = sorted(kept, key=lambda each: -each.size)[: int(options["models"])]
    return [replace(each.outcome, notes=(*each.outcome.notes, *notes)) for each in best]


def names(options: Mapping[str, Any]) -> list[str]:
    """What models may be called: the per cent of the weights that each keeps."""
    return [f"{100 * size:.0f}" for size in _sizes(options)]


def _sizes(options: Mapping[str, Any]) -> list[float]:
    """At most twice as many as models are wanted."""
    every = [float(options["first"]) - number * float(options["step"]) for number in range(2 * int(options["models"]))]
    return [size for size in every if size > 0]


METHOD = Method(
    "unify",
    "a global Lasso or ridge path to sparse supports, swaps, refits, and several models that none of them beats",
    OPTIONS,
    run=run,
    names=names,
)


def _path(spot: Spot) -> Path:
    """Of all groups together."""
    each = [paths.lasso_path(weight, of.matrix) for weight, of in zip(spot.weights, spot.of, strict=True)]
    return Path(
        np.mean([path.penalties for path in each], axis=0),
        np.mean([path.zeros for path in each], axis=0),
        np.mean([path.masses for path in each], axis=0),
    )


def _table(levels: Levels, names: Sequence[str], found: Mapping[str, Path], rises: Array) -> Table:
    count = len(levels.shares)
    places = {name: at for at, name in enumerate(levels.names)}
    mean = rises.mean(axis=0).reshape(-1, count)
    sizes = levels.sizes.reshape(-1, count)
    rows = [places[name] for name in names]
    whole = sizes[rows, 0]
    masses = np.array([np.interp(levels.shares, found[n].zeros[::-1], found[n].masses[::-1]) for n in names])
    masses[:, 0] = 1.0
    return Table(mean[rows], sizes[rows], masses * whole[:, None])


def along(
    names: Sequence[str], found: Mapping[str, Path], effects: Mapping[str, Array], sizes: Array, share: float
) -> Array:
    """The share of zeros of each layer at the one λ that leaves out `share` of all: a layer's own λ is that over what
    its loss does to the answers."""
    weighs = np.array([float(effects[name].mean()) for name in names])
    weighs = np.maximum(weighs, 1e-12 * max(float(weighs.max(initial=0.0)), 1e-300))

    def zeros(penalty: float) -> Array:
        return np.array([
            np.interp(np.log(penalty / w), np.log(found[n].penalties[::-1] + 1e-300), found[n].zeros[::-1])
            for n, w in zip(names, weighs, strict=True)
        ])  # fmt: skip

    ends = [found[n].penalties * w for n, w in zip(names, weighs, strict=True)]
    low, high = min(float(e.min()) for e in ends) + 1e-300, max(float(e.max()) for e in ends) + 1e-300
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        if float(sizes @ zeros(middle)) < share * float(sizes.sum()):
            low = middle
        else:
            high = middle
    return zeros(high)


def _models(
    bench: Workbench, seen: Slice, levels: Levels, names: Sequence[str], table: Table, found: Mapping[str, Path],
    options: Mapping[str, Any],
) -> tuple[list[Made], list[str]]:  # fmt: skip
    """At most twice as many as are wanted, each smaller than the one before."""
    made: list[Made] = []
    notes: list[str] = []
    pool: list[Array] = []
    trusted = False
    wanted, whole = int(options["models"]), table.sizes[:, 0]
    for size in _sizes(options):
        if len(front(made, _point)) >= wanted:
            break
        shares = along(names, found, levels.effects, whole, 1 - size)
        start = np.searchsorted(levels.shares, np.minimum(shares, levels.shares[-1]) - 1e-9)
        room = size * levels.total * (1 + 1e-9)
        pool = exchange(table, [start, *pool], room, float(options["epsilon"]), int(options["supports"]), SWAPS_MAX)
        if not pool:
            notes.append(f"no support of size {size:.2f} keeps more than epsilon = {options['epsilon']} of Σ|θ|")
            break
        chosen = {name: float(levels.shares[level]) for name, level in zip(names, pool[0], strict=True)}
        if not trusted:
            same = dict.fromkeys(names, 1 - size)
            ours, theirs = (_lost(seen, _make(bench, each, options, "fast")) for each in (chosen, same))
            notes.append(f"size {size:.2f}: by the path the answers lose {ours:.4f}, by equal shares {theirs:.4f}")
            trusted = ours <= theirs
            chosen = chosen if trusted else same
        outcome = _make(bench, chosen, options, str(options["search"]))
        lost = _lost(seen, outcome)
        if 1 - lost < float(options["keep"]):
            notes.append(
                f"size {size:.2f}: the answers keep {1 - lost:.4f}, less than {options['keep']}; the search ends"
            )
            break
        unseen = levels.total - float(whole.sum())
        kept = unseen + sum(w * (1 - chosen[name]) for name, w in zip(names, whole, strict=True))
        said = f"keeps {kept / levels.total:.1%} of the weights; on the rows looked at the answers lose {lost:.4f}"
        told = [f"{name} loses {share:.1%} of its weights" for name, share in chosen.items()]
        outcome = replace(outcome, name=f"{100 * size:.0f}", notes=(*outcome.notes, said, *told))
        made.append(Made(outcome, kept / levels.total, lost))
    return made, notes


def _point(made: Made) -> tuple[float, float]:
    return made.size, made.lost


def _lost(seen: Slice, outcome: Outcome) -> float:
    return float(seen.lost(outcome.graph).mean())


def _make(bench: Workbench, shares: Mapping[str, float], options: Mapping[str, Any], search: str) -> Outcome:
    given = {name: options[name] for name in ("path", "swaps", "pool", "damping")}
    if search == "fast":
        given["swaps"] = 0
    given |= {"shares": dict(shares), "search": search}
    return bench.layerwise(supports.SOLVER, lambda layer: layer.op != "Gather", given)
