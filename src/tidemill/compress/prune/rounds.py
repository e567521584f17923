"""The rounds of the 0-1 search: look around, solve the linearised programme, make the model, look again; bounded.

Runs in the command line's process. Every model is measured on a slice of the rows learned from; the best one that obeys
what was asked for is what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tidemill.compress.graph import Graph
from tidemill.compress.prune import classic
from tidemill.compress.prune.programme import Limit, Programme, solve
from tidemill.compress.prune.slices import Slice
from tidemill.compress.prune.space import Local, Space
from tidemill.core.tensor import Array

QUICK = "sweep"
"""How supports are searched while the choice may still change."""
CLASSIC_STEPS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Asked:
    """Shares: of weights kept, of each answer's variance lost (inf: as little as can be), of the time kept (inf)."""

    size: float
    loss: float = float("inf")
    time: float = float("inf")


@dataclass(slots=True, eq=False)
class Found:
    """`over` is by how much the answer that lost most lost too much, 0 where every constraint holds. `size` counts
    where the answers' losses are limited, and is 0 where it is the size that is."""

    taken: Array
    size: float
    lost: float
    over: float
    words: str


@dataclass(slots=True, eq=False)
class Search:
    """`notes` are sentences for the report."""

    found: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def best(self) -> Found | None:
        """Of those that obey, the smallest or the one that loses least; else the one that is least over."""
        return min(self.found, key=lambda each: (each.over, each.size, each.lost), default=None)

    def add(self, taken: Array, size: float, lost: Array, asked: Asked, words: str, time: float = 0.0) -> None:
        limited = bool(np.isfinite(asked.loss))
        over = max(0.0, float(lost.max()) - asked.loss) if limited else 0.0
        over += max(0.0, time - asked.time)
        self.found.append(Found(taken, size if limited else 0.0, float(lost.mean()), over, words))


def programme(local: Local, space: Space, asked: Asked, allowed: Array, slower: float = 0.0) -> Programme:
    """Least loss of the mean answer, or, where `asked` limits each answer's loss, least size. `slower` is by how much
    the last model took longer than its times said."""
    x = local.taken.astype(np.float64)
    limits = [Limit("size", local.sizes, asked.size * space.total - local.size)]
    costs = local.rises.mean(axis=0)
    if np.isfinite(asked.loss):
        costs = local.sizes + costs * (1e-3 * space.total / max(float(np.abs(costs).sum()), 1e-300))
        limits += [
            Limit(f"answer {at}", rise, asked.loss - float(lost) + float(rise @ x))
            for at, (lost, rise) in enumerate(zip(local.lost, local.rises, strict=True))
        ]
    if local.times is not None and np.isfinite(asked.time):
        limits.append(Limit("time", local.times, asked.time - 1 - slower))
    return Programme(costs, limits, space.sets, allowed)


def search(space: Space, seen: Slice, dense: Graph, asked: Asked, rounds: int) -> Search:
    """At most `rounds` times around; and the uniform choice beside them, which must be beaten."""
    result = Search()
    now, taken, slower = dense, space.dense(), 0.0
    for number in range(1, rounds + 1):
        local = space.look(taken, now)
        wanted = programme(local, space, asked, space.near(taken), slower)
        following = solve(wanted)
        if following is None:
            result.notes.append(_stuck(wanted, number))
            following = _without_size(wanted, number, result)
        if following is None:
            break
        if not any("given up" in note for note in result.notes):
            following = space.mend(following, asked.size * space.total)
        if number > 1 and (following == taken).all():
            result.notes.append(f"round {number} changed nothing")
            break
        changed = int((following != taken).sum())
        taken = following
        now = space.make(taken, QUICK).graph
        lost, time = seen.lost(now), 0.0
        if local.times is not None and np.isfinite(asked.time):
            time = space.seconds(now)
            slower = max(0.0, time - 1 - float(local.times @ taken))
        result.add(taken, space.kept(taken), lost, asked, f"round {number}", time)
        result.notes.append(f"round {number}: {changed} variables changed, the answers lose {lost.mean():.4f}")
    same = space.uniform()
    if same is not None and result.found:
        lost = seen.lost(space.make(same, QUICK).graph)
        result.add(same, space.kept(same), lost, asked, "the same share everywhere")
        result.notes.append(f"the same share everywhere: the answers lose {lost.mean():.4f}")
    return result


def search_classic(space: Space, seen: Slice, dense: Graph, asked: Asked, steps_max: int = CLASSIC_STEPS_MAX) -> Search:
    """One answer a round, the least step that raises it."""
    result = Search()
    local = space.look(space.dense(), dense)
    room = asked.size * space.total - local.size
    walked = classic.walk(
        local.taken, local.rises, local.sizes, space.sets, local.lost, asked.loss, room, steps_max,
        space.near(local.taken), seen.names,
    )  # fmt: skip
    result.notes.append(f"{walked.steps} steps: {walked.ended}")
    lost = seen.lost(space.make(walked.taken, QUICK).graph)
    result.add(walked.taken, space.kept(walked.taken), lost, asked, "classic")
    return result


def _stuck(wanted: Programme, number: int) -> str:
    names = ", ".join(limit.name for limit in wanted.limits)
    return f"round {number}: no feasible step is left within the limits on {names}"


def _without_size(wanted: Programme, number: int, result: Search) -> Array | None:
    """In the first round, when each answer's loss and the size cannot both be had: as small as the losses allow."""
    rest = [limit for limit in wanted.limits if limit.name != "size"]
    if number > 1 or len(rest) == 0:
        return None
    result.notes.append("the limit on size was given up for those on the answers")
    return solve(Programme(wanted.costs, rest, wanted.sets, wanted.allowed))
