"""`binary`: two values a weight within its block's [a, b]; a worker's process.

The two values are a and b themselves, the block's minimum and maximum (`values="range"`), or fitted. Biases take two
values too where asked, and inputs two values within [−1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.compress.method import Method
from tidemill.compress.quantise.few import few_values, options
from tidemill.compress.task import LayerResult, LayerTask


@dataclass(frozen=True, slots=True)
class Binary:
    """Gives a `Uniform` of 1 bit with free offsets: code 0 stands for one value, code 1 for the other."""

    def solve(self, task: LayerTask) -> LayerResult:
        return few_values(task, 1, METHOD.settle(task.options))


METHOD = Method("binary", "two values a weight", options(64), Binary())
