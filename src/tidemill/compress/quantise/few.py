"""What `binary` and `two-bit` share: their options, and biases of few values; runs wherever a layer is solved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Option
from tidemill.compress.quantise.grid import fitted, plain
from tidemill.compress.quantise.sight import look
from tidemill.compress.quantise.uniform import Plan, quantised
from tidemill.compress.task import LayerResult, LayerTask
from tidemill.core.tensor import Array


def options(block: int) -> dict[str, Option]:
    return {
        "block": Option(int, block, "columns that share their values, 0: whole rows; engines take 16 to 256", 0, 65536),
        "values": Option(str, "fitted", "fitted, or evenly from minimum to maximum", choices=("fitted", "range")),
        "biases": Option(bool, False, "biases take as few values as weights"),
        "activations": Option(bool, False, "inputs take as few values, within [-1, 1]"),
        "sweeps": Option(int, 6, "rounds of coordinate descent", 0, 64),
        "steps": Option(int, 200, "steps of learned rounding; 0 leaves it out", 0, 10_000),
        "damping": Option(float, DAMPING, "added to H's diagonal, as a share of its mean", 0.0, 10.0),
    }


def few_values(task: LayerTask, bits: int, given: Mapping[str, Any]) -> LayerResult:
    """`task` with weights (and biases and inputs where `given` says so) of 2**bits values."""
    sight = look(task, damping=given["damping"], activation_bits=bits if given["activations"] else 0, within=1.0)
    if given["values"] == "range":
        block = min(given["block"] or task.weight.shape[1], task.weight.shape[1])
        grid = plain(sight.target, bits, block, whole=False).stored()
        result = sight.result(grid.form(grid.all_codes(sight.target)))
    else:
        plan = Plan(bits, given["block"], whole=False, sweeps=given["sweeps"], steps=given["steps"])
        result = sight.result(quantised(sight, plan))
    if result.bias is None or not given["biases"]:
        return result
    bias = _few(result.bias, bits, fits=given["values"] == "fitted")
    lost = float(np.square(bias.astype(np.float64) - result.bias).sum())
    return replace(
        result,
        bias=bias,
        error_fit=result.error_fit + lost / sight.energy(task.fit),
        error_held=result.error_held + lost / sight.energy(task.held),
    )


def _few(bias: Array, bits: int, *, fits: bool) -> Array:
    row = bias.astype(np.float64)[None]
    if fits:
        grid = fitted(row, np.ones(row.shape[1]), bits, row.shape[1], whole=False)
    else:
        grid = plain(row, bits, row.shape[1], whole=False)
    return np.asarray(grid.decode(grid.all_codes(row))[0], np.float32)
