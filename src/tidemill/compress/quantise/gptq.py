"""`gptq`: evenly spaced weights, each one's rounding error made up for by those not yet rounded; a worker's process.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ" (2022), with ranges found by weighted least squares, then coordinate
descent on codes and scales against the same H.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Method, Option
from tidemill.compress.quantise.sight import look
from tidemill.compress.quantise.uniform import Plan, quantised
from tidemill.compress.task import LayerResult, LayerTask

OPTIONS = {
    "bits": Option(int, 4, "bits of a weight; engines have kernels for 2, 4 and 8", 2, 8),
    "block": Option(int, 32, "columns that share a step, 0 for whole rows; engines take 16 to 256, doubling", 0, 65536),
    "symmetric": Option(bool, False, "no zero points stored: the middle code stands for zero"),
    "act_order": Option(bool, True, "the inputs with the most energy first"),
    "sweeps": Option(int, 4, "rounds of coordinate descent afterwards; 0 is GPTQ alone", 0, 64),
    "damping": Option(float, DAMPING, "added to H's diagonal, as a share of its mean", 0.0, 10.0),
}


@dataclass(frozen=True, slots=True)
class Gptq:
    """`bits` uint8 codes with zero points; see `OPTIONS`."""

    def solve(self, task: LayerTask) -> LayerResult:
        given = METHOD.settle(task.options)
        sight = look(task, damping=given["damping"])
        plan = Plan(given["bits"], given["block"], symmetric=given["symmetric"], by_weight=given["act_order"],
                    sweeps=given["sweeps"])  # fmt: skip
        form = quantised(sight, plan)
        return sight.result(form)


METHOD = Method("gptq", "2 to 8 bit weights, rounding errors compensated (GPTQ)", OPTIONS, Gptq())
