"""What a layer should aim at when its inputs are no longer the original's, and its bias afterwards; pure.

With x the original's input, x̂ the compressed model's, and C, H the centred E[x x̂ᵀ], E[x̂ x̂ᵀ], the weights that bring
W x back best are W* = (W C + λ W)(H + λ I)⁻¹: least squares, drawn towards W where the data say little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.moments import Captured
from tidemill.compress.solving import bias_after
from tidemill.core.tensor import Array

SHARE = 0.01
"""λ as a share of H's mean diagonal, with plenty of rows; with few of them it grows as K / rows."""
ZEROS_MAX = 0.2
"""A layer with more zeros than this was pruned before, and W* would fill them: it keeps its weights."""


def target(weight: Array, bias: Array | None, captured: Captured) -> tuple[Array, Array | None]:
    """(W*, b*) for one layer or group, float32. Without a bias to take the means up, the moments are not centred."""
    cross, mean = captured.cross, captured.mean
    if cross is None or mean is None or (weight == 0).mean() > ZEROS_MAX:
        return weight, bias
    second, now = captured.fit.second, captured.fit.mean
    if bias is not None:
        cross = cross - np.outer(mean, now)
        second = second - np.outer(now, now)
    size = len(second)
    scale = float(np.trace(second)) / size
    if scale <= 0:
        return weight, bias
    ridge = SHARE * scale * (1 + size / captured.fit.count)
    of = weight.astype(np.float64)
    damped = second + ridge * np.eye(size)
    try:
        solved = scipy.linalg.solve(damped, (of @ cross + ridge * of).T, assume_a="pos", check_finite=False).T
    except np.linalg.LinAlgError:
        return weight, bias
    if not np.isfinite(solved).all():
        return weight, bias
    wanted = np.asarray(solved, np.float32)
    return wanted, None if bias is None else np.asarray(bias + of @ mean - wanted @ now, np.float32)


def put(
    graph: Graph,
    layer: Layer,
    weights: Sequence[Array],
    bias: Array | None,
    instead: Sequence[Array],
    means: Sequence[Array],
) -> Graph:
    """A copy of `graph` in which `layer` has the weights `instead` (one part for each group), and a bias that makes its
    mean outputs what `weights` and `bias` would. `means` are E[x̂]."""
    changed = graph.copy()
    if bias is not None:
        parts = zip(weights, np.split(bias, len(weights)), instead, means, strict=True)
        bias = np.concatenate([bias_after(*part) for part in parts])
    changed.set_dense(layer, np.concatenate(instead), bias)
    return changed
