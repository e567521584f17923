"""`two-bit`: four values a weight, two binary codes of which the second halves the first's step; a worker's process.

A block's values are m + s·z₁ + (s/2)·z₂ with z₁, z₂ in {−1, 1}: evenly spaced, which costs normal weights 1 % more
error than four free values, and is what engines have kernels for. m and s are free numbers, found by alternating least
squares. Biases and inputs take four values too where asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.compress.method import Method
from tidemill.compress.quantise.few import few_values, options
from tidemill.compress.task import LayerResult, LayerTask


@dataclass(frozen=True, slots=True)
class TwoBit:
    """Gives a `Uniform` of 2 bits with free offsets."""

    def solve(self, task: LayerTask) -> LayerResult:
        return few_values(task, 2, METHOD.settle(task.options))


METHOD = Method("two-bit", "four values a weight, two residual binary codes", options(64), TwoBit())
