"""A solver for layers that are each pruned as was chosen for them: a share, a pattern, or blocks; runs in workers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tidemill.compress.hessian import DAMPING, check, hessian
from tidemill.compress.prune import obs, surgeon
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.task import LayerResult, LayerTask
from tidemill.core.tensor import Array

GROUP: Final = re.compile(r"\[(\d+)\]$")


class Chosen:
    """`Solver`. Options: `plans` {layer: plan}, `search` (see `surgeon.SEARCHES`), `damping`. A plan is one of
    {"share": zeros}, {"kept": N, "group": M}, {"blocks": written by `write_blocks`, "rows": R, "columns": C}. A layer
    without a plan keeps all its weights."""

    def solve(self, task: LayerTask) -> LayerResult:
        check(task)
        of = hessian(task.fit, float(task.options.get("damping", DAMPING)), centred=task.bias is not None)
        weight = task.weight.astype(np.float64)
        found = GROUP.search(task.name)
        plan = task.options["plans"].get(GROUP.sub("", task.name), {"share": 0.0})
        if "blocks" in plan:
            mask = read_blocks(plan, weight.shape, int(found[1]) if found else 0)
            pruned = obs.refit(weight, mask, of.matrix)
        else:
            pattern = read(plan)
            whole = pattern.kept == pattern.group if pattern.group else pattern.sparsity <= 0
            pruned = weight if whole else surgeon.prune(weight, of, pattern, str(task.options.get("search", "auto")))
        return surgeon.answer(task, pruned, of)


SOLVER = Chosen()


def read(plan: Mapping[str, Any]) -> Pattern:
    """Of a plan without blocks."""
    return Pattern(float(plan.get("share", 0.0)), int(plan.get("kept", 0)), int(plan.get("group", 0)))


def blocks(shape: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
    """How many blocks of `rows` x `columns` lie below and beside each other; those at the edge may be smaller."""
    return -(-shape[0] // rows), -(-shape[1] // columns)


def widen(kept: Array, shape: tuple[int, int], rows: int, columns: int) -> Array:
    """The mask [out, in] of kept blocks [down, across]."""
    return np.asarray(np.repeat(np.repeat(kept, rows, axis=0), columns, axis=1)[: shape[0], : shape[1]])


def write_blocks(kept: Array, rows: int, columns: int) -> dict[str, Any]:
    """`kept` bool [groups, down, across] as a plan."""
    return {"blocks": base64.b64encode(np.packbits(kept).tobytes()).decode(), "rows": rows, "columns": columns}


def read_blocks(plan: Mapping[str, Any], shape: tuple[int, int], group: int) -> Array:
    """The mask of one group, [out, in]."""
    down, across = blocks(shape, int(plan["rows"]), int(plan["columns"]))
    bits = np.unpackbits(np.frombuffer(base64.b64decode(plan["blocks"]), np.uint8))
    kept = bits[group * down * across : (group + 1) * down * across].astype(np.bool_).reshape(down, across)
    return widen(kept, shape, int(plan["rows"]), int(plan["columns"]))
