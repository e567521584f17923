"""A linear 0-1 programme of what is kept and what is dropped, solved by HiGHS; pure functions.

A variable is one choice: a block dropped, or a layer at one of its levels. Variables of a set are alternatives, of
which exactly one is taken; free variables are taken or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from tidemill.core.tensor import Array

FREE = -1
NODES_MAX = 2_000
"""Branches of the search: a bound that, unlike a clock, gives the same answer each time."""
SECONDS_MAX = 300.0
GAP = 1e-4
SLACK = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """y(x) = coefficients · x − most ≤ 0."""

    name: str
    coefficients: Array
    most: float

    def over(self, taken: Array) -> float:
        """y(x); above 0 it is violated."""
        return float(self.coefficients @ taken) - self.most

    def holds(self, taken: Array) -> bool:
        return self.over(taken) <= SLACK * max(1.0, abs(self.most))


@dataclass(frozen=True, slots=True, eq=False)
class Programme:
    """Minimise `costs` · x under `limits`. `sets` [variables] numbers the set that a variable is of, or is `FREE`.
    `allowed` [variables], where given, is False for what must not be taken in this round."""

    costs: Array
    limits: Sequence[Limit]
    sets: Array
    allowed: Array | None = None

    def obeyed(self, taken: Array) -> bool:
        """Sets, what is allowed, and every limit."""
        numbers = self.sets[self.sets != FREE]
        each = np.bincount(self.sets[taken & (self.sets != FREE)], minlength=int(numbers.max(initial=-1)) + 1)
        forbidden = self.allowed is not None and bool((taken & ~self.allowed).any())
        return bool((each[np.unique(numbers)] == 1).all()) and not forbidden and self.broken(taken) is None

    def broken(self, taken: Array) -> Limit | None:
        """The limit that is violated most, as a share of what it allows."""
        worst = [(limit.over(taken) / max(abs(limit.most), 1e-300), limit) for limit in self.limits]
        worst = [(share, limit) for share, limit in worst if not limit.holds(taken)]
        return max(worst, key=lambda pair: pair[0])[1] if worst else None


def solve(programme: Programme, seconds_max: float = SECONDS_MAX) -> Array | None:
    """What is taken, bool [variables]; None where nothing obeys the limits (or nothing was found within the bounds)."""
    count = len(programme.costs)
    if not count:
        return np.zeros(0, np.bool_)
    # HiGHS works with absolute tolerances: costs and limits are brought to about 1.
    scale = float(np.abs(programme.costs).max()) or 1.0
    constraints = []
    for limit in programme.limits:
        size = max(float(np.abs(limit.coefficients).max()), 1e-300)
        if not np.isfinite(limit.most):
            continue
        constraints.append(LinearConstraint(limit.coefficients[None] / size, -np.inf, limit.most / size))
    bound = np.flatnonzero(programme.sets != FREE)
    if bound.size:
        _, rows = np.unique(programme.sets[bound], return_inverse=True)
        shape = (int(rows.max()) + 1, count)
        constraints.append(LinearConstraint(sparse.csr_matrix((np.ones(bound.size), (rows, bound)), shape=shape), 1, 1))
    upper = np.ones(count) if programme.allowed is None else programme.allowed.astype(np.float64)
    found = milp(
        programme.costs / scale,
        integrality=np.ones(count),
        bounds=Bounds(0, upper),
        constraints=constraints,
        options={"mip_rel_gap": GAP, "node_limit": NODES_MAX, "time_limit": seconds_max},
    )
    if found.x is None:
        return None
    taken = np.asarray(found.x > 0.5)
    return taken if programme.obeyed(taken) else repair(programme, taken)


def repair(programme: Programme, taken: Array) -> Array | None:
    """`taken`, with the cheapest flips that bring every limit down: each time the flip that costs least for what it
    takes off the limit violated most, and that breaks no limit which held. None where no such flip is left; at most
    twice as many flips as there are variables."""
    now = taken.copy()
    for _ in range(2 * len(now) + 1):
        worst = programme.broken(now)
        if worst is None:
            return now if programme.obeyed(now) else None
        best: tuple[float, Array] | None = None
        for flips in _flips(programme, now):
            relief = -float(worst.coefficients[flips] @ np.where(now[flips], -1.0, 1.0))
            if relief <= 0:
                continue
            price = float(programme.costs[flips] @ np.where(now[flips], -1.0, 1.0)) / min(relief, worst.over(now))
            if best is not None and price >= best[0]:
                continue
            after = now.copy()
            after[flips] = ~after[flips]
            if all(limit.holds(after) for limit in programme.limits if limit is not worst and limit.holds(now)):
                best = (price, after)
        if best is None:
            return None
        now = best[1]
    return None


def _flips(programme: Programme, now: Array) -> Iterator[Array]:
    """Every change of one free variable, and of one set to another of its alternatives."""
    may = np.ones(len(now), np.bool_) if programme.allowed is None else programme.allowed
    for each in np.flatnonzero((programme.sets == FREE) & (may | now)):
        yield np.array([each])
    for number in np.unique(programme.sets[programme.sets != FREE]):
        of = np.flatnonzero(programme.sets == number)
        held = of[now[of]]
        for each in of[~now[of] & may[of]]:
            yield np.append(held, each)
