"""What a worker does with the layer it is given; pure.

Workers import this and their solver: neither onnx nor an engine, whose code would stand in memory once for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tidemill.compress.hessian import MORE_DATA
from tidemill.compress.stacking import stack
from tidemill.compress.task import LayerTask, Solver
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

if TYPE_CHECKING:
    from tidemill.compress.layer_cache import Answer


def solve(solver: Solver, tasks: Sequence[LayerTask]) -> Answer:
    """All groups of one layer. A solver that says nothing of the bias has it corrected, so that the mean output is the
    target's."""
    results = []
    try:
        for task in tasks:
            result = solver.solve(task)
            if task.bias is not None and result.bias is None:
                bias = bias_after(task.weight, task.bias, result.form.decode(), task.fit.mean)
                result = replace(result, bias=bias)
            results.append(replace(result, notes=_with_rank(task, result.notes)))
    except RefusedLayer as refused:
        return refused.message
    return stack(tasks, results)


def bias_after(weight: Array, bias: Array, compressed: Array, mean: Array) -> Array:
    """The bias with which the layer's mean output is what the target's was. `mean` is E[x̂]."""
    lost = (weight.astype(np.float64) - compressed) @ mean
    return np.asarray(bias + lost, np.float32)


def _with_rank(task: LayerTask, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Too few rows are said, where the solver has not."""
    columns = task.weight.shape[1]
    if task.fit.count >= columns or np.array_equal(task.fit.second, np.eye(columns)) or any("rank" in n for n in notes):
        return notes
    return (*notes, f"{task.fit.count} rows give H a rank of at most that, of {columns}: {MORE_DATA}")
