"""Layers to prune, with inputs that depend on one another as real ones do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tidemill.compress.task import LayerTask, Moments
from tidemill.core.tensor import Array


def moments(rows: Array) -> Moments:
    counts, edges = np.histogram(rows, 16)
    return Moments(
        len(rows), rows.T @ rows / len(rows), rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0), counts, edges
    )


def inputs(features: int, count: int, seed: int) -> Array:
    """Rows of a few directions and a little noise, with a mean."""
    mix = np.random.default_rng(features).normal(size=(max(1, features // 2), features))
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, len(mix))) @ mix
    return rows + 0.1 * chance.normal(size=rows.shape) + 0.5


def task(
    out: int = 6,
    features: int = 16,
    count: int = 200,
    seed: int = 0,
    bias: bool = True,
    options: Mapping[str, Any] | None = None,
) -> LayerTask:
    chance = np.random.default_rng(seed)
    weight = chance.normal(size=(out, features)).astype(np.float32)
    shift = chance.normal(size=out).astype(np.float32) if bias else None
    fit, held = (moments(inputs(features, count, seed + each)) for each in (1, 2))
    return LayerTask("layer", weight, shift, fit, held, seed, options or {})
