"""`adaquant`: steps, offsets, rounding and bias learned against the layer's output; a worker's process.

`form="learned"` is the default: ranges by weighted least squares, rounding by gradient (`anneal.py`), then steps by
exact least squares and codes by coordinate descent; free offsets, the inputs' step and offset, and the bias likewise.
The layer's output error depends on the inputs through H alone, so no sample is ever looked at again, and numpy is
enough. `form="classic"` is the textbook iteration (`classic.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.compress.hessian import DAMPING
from tidemill.compress.method import Method, Option
from tidemill.compress.quantise.classic import classic
from tidemill.compress.quantise.sight import look
from tidemill.compress.quantise.uniform import Plan, quantised
from tidemill.compress.task import LayerResult, LayerTask

OPTIONS = {
    "bits": Option(int, 4, "bits of a weight; engines have kernels for 2, 4 and 8", 1, 8),
    "block": Option(int, 32, "columns that share a step, 0 for whole rows; engines take 16 to 256, doubling", 0, 65536),
    "activation_bits": Option(int, 0, "bits of the layer's input; 0 leaves it as it is", 0, 8),
    "offsets": Option(str, "codes", "whole codes, or free numbers (4 more bytes a block)", choices=("codes", "free")),
    "steps": Option(int, 200, "steps of learned rounding", 0, 10_000),
    "sweeps": Option(int, 4, "rounds of coordinate descent afterwards", 0, 64),
    "damping": Option(float, DAMPING, "added to H's diagonal, as a share of its mean", 0.0, 10.0),
    "form": Option(str, "learned", "how it learns", choices=("learned", "classic")),
    "lr": Option(float, 0.01, "classic: the learning rate, of the mean square gradient too", 1e-6, 1.0),
    "wd": Option(float, 0.1, "classic: what the offset loses a step, as a share of lr", 0.0, 100.0),
    "tau": Option(float, 1.0, "classic: the temperature that divides the gradient's root mean square", 1e-6, 1e6),
}


@dataclass(frozen=True, slots=True)
class Adaquant:
    """Gives a `Uniform`, a bias where there is one, and an `Activation` where asked; see `OPTIONS`."""

    def solve(self, task: LayerTask) -> LayerResult:
        given = METHOD.settle(task.options)
        sight = look(task, damping=given["damping"], activation_bits=given["activation_bits"])
        if given["form"] == "classic":
            form = classic(sight, given["bits"], given["block"], steps=given["steps"], lr=given["lr"], wd=given["wd"],
                           tau=given["tau"])  # fmt: skip
            return sight.result(form)
        plan = Plan(given["bits"], given["block"], whole=given["offsets"] == "codes", sweeps=given["sweeps"],
                    steps=given["steps"])  # fmt: skip
        return sight.result(quantised(sight, plan))


METHOD = Method("adaquant", "any bit width; steps, offsets, rounding and bias learned", OPTIONS, Adaquant())
