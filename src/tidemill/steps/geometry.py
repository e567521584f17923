"""Shapes in a map of pixels: connected areas, hulls, the smallest rectangle around them; pure, any process.

Hull: Andrew's monotone chain. Rectangle: one side of the smallest lies on a side of the hull (Freeman, Shapira, 1975).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidemill.core.tensor import Array


class Rectangle(NamedTuple):
    """`centre` [2] as (x, y), `axis` [2] of length one along the side `width`, across it `height`."""

    centre: Array
    axis: Array
    width: float
    height: float

    def grown(self, by: float) -> Rectangle:
        """The same with each side `by` farther out."""
        return self._replace(width=self.width + 2 * by, height=self.height + 2 * by)

    def corners(self) -> Array:
        """FP64 [4, 2] as (x, y): upper left, upper right, lower right, lower left, as far as that can be said."""
        across = np.array([-self.axis[1], self.axis[0]])
        u, v = self.axis * self.width / 2, across * self.height / 2
        found = np.stack([self.centre - u - v, self.centre + u - v, self.centre + u + v, self.centre - u + v])
        order = np.argsort(found[:, 0], kind="stable")
        left, right = found[order[:2]], found[order[2:]]
        left, right = left[np.argsort(left[:, 1], kind="stable")], right[np.argsort(right[:, 1], kind="stable")]
        return np.stack([left[0], right[0], right[1], left[1]])


def areas(mask: Array, most: int) -> list[Array]:
    """The connected areas (eight neighbours) of `mask` [H, W], each as its outermost pixels INT64 [n, 2], (x, y).

    Of more than `most` areas the largest. Works on runs of pixels within a row: text has few of them.
    """
    rows, starts, ends = _runs(mask)
    parents = np.arange(len(rows))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = int(parents[run])
        return run

    first_of = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for row in range(1, mask.shape[0]):
        above, end_above, here, end_here = first_of[row - 1], first_of[row], first_of[row], first_of[row + 1]
        while above < end_above and here < end_here:
            if starts[above] <= ends[here] and starts[here] <= ends[above]:
                a, b = root(int(above)), root(int(here))
                parents[max(a, b)] = min(a, b)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(rows))], np.int64)
    names, member = np.unique(roots, return_inverse=True)
    sizes = np.bincount(member, ends - starts, len(names)) if len(names) else np.zeros(0)
    chosen = np.sort(np.argsort(-sizes, kind="stable")[:most])
    order = np.argsort(member, kind="stable")
    bounds = np.searchsorted(member[order], np.arange(len(names) + 1))
    found = []
    for name in chosen:
        runs = order[bounds[name] : bounds[name + 1]]
        x = np.concatenate([starts[runs], ends[runs] - 1])
        found.append(np.stack([x, np.concatenate([rows[runs], rows[runs]])], axis=1))
    return found


def _runs(mask: Array) -> tuple[Array, Array, Array]:
    """Row, first column, and the column behind the last, of each run of True, in order."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    edges = np.diff(padded, axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def hull(points: Array) -> Array:
    """The corners of the convex hull of INT64 [n, 2], counter-clockwise where y points up; fewer than 3 for a line."""
    ordered = np.unique(points, axis=0)
    if len(ordered) < 3:
        return ordered
    # Of each column only its two ends can be corners.
    firsts = np.unique(ordered[:, 0], return_index=True)[1]
    lasts = np.append(firsts[1:], len(ordered)) - 1
    kept = [tuple(each) for each in ordered[np.unique(np.concatenate([firsts, lasts]))].tolist()]

    def half(way: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for x, y in way:
            while len(found) > 1:
                (ax, ay), (bx, by) = found[-2], found[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                found.pop()
            found.append((x, y))
        return found

    return np.array(half(kept)[:-1] + half(kept[::-1])[:-1], np.int64)


def smallest_rectangle(points: Array) -> Rectangle:
    """Around the centres of the pixels `points` INT64 [n, 2]; `width` lies along the more level side."""
    corners = hull(points).astype(np.float64)
    if len(corners) < 3:
        start, end = corners[0], corners[-1]
        length = float(np.hypot(*(end - start)))
        axis = (end - start) / length if length else np.array([1.0, 0.0])
        return _level(Rectangle((start + end) / 2, axis, length, 0.0))
    sides = np.roll(corners, -1, axis=0) - corners
    axes = sides / np.hypot(sides[:, 0], sides[:, 1])[:, np.newaxis]
    across = np.stack([-axes[:, 1], axes[:, 0]], axis=1)
    along, beside = corners @ axes.T, corners @ across.T
    widths, heights = np.ptp(along, axis=0), np.ptp(beside, axis=0)
    best = int(np.argmin(widths * heights))
    middle = (along[:, best].max() + along[:, best].min()) / 2, (beside[:, best].max() + beside[:, best].min()) / 2
    centre = axes[best] * middle[0] + across[best] * middle[1]
    return _level(Rectangle(centre, axes[best], float(widths[best]), float(heights[best])))


def _level(found: Rectangle) -> Rectangle:
    if abs(found.axis[0]) >= abs(found.axis[1]):
        return found
    turned = np.array([-found.axis[1], found.axis[0]])
    return Rectangle(found.centre, turned, found.height, found.width)


def mean_inside(values: Array, found: Rectangle) -> float:
    """The mean of `values` [H, W] over the pixels whose centres lie within; 0 where none does."""
    height, width = values.shape
    corners = found.corners()
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, [width - 1, height - 1])
    y, x = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
    dx, dy = x - found.centre[0], y - found.centre[1]
    inside = (np.abs(dx * found.axis[0] + dy * found.axis[1]) <= found.width / 2 + 1e-6) & (
        np.abs(dy * found.axis[0] - dx * found.axis[1]) <= found.height / 2 + 1e-6
    )
    part = values[low[1] : high[1] + 1, low[0] : high[0] + 1]
    return float(part[inside].mean()) if inside.any() else 0.0
