"""How the weights of a compressed layer are kept: what a solver returns and `emit.py` writes; plain values.

Every form decodes to float32 [out, in], which is what the emitted layer computes with: the reference for any engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Plain float32 [out, in]; zeros are kept as zeros."""

    weight: Array

    def decode(self) -> Array:
        return self.weight

    @property
    def size_bytes(self) -> int:
        return int(self.weight.size) * 4


@dataclass(frozen=True, slots=True, eq=False)
class Uniform:
    """Evenly spaced values: `scales * (codes - zero_points)`.

    `codes` are uint8 [out, in] below 2**bits; `block` columns share a scale (0: a whole row does). `scales` are float32
    and `zero_points` uint8, or float32 where they may lie between codes, both [out, ceil(in / block)].
    """

    codes: Array
    scales: Array
    zero_points: Array
    bits: int
    block: int = 0

    def decode(self) -> Array:
        columns = self.codes.shape[1]
        block = self.block or columns
        each = np.arange(columns) // block
        centred = self.codes.astype(np.float32) - self.zero_points.astype(np.float32)[:, each]
        return np.asarray(centred * self.scales[:, each], np.float32)

    @property
    def size_bytes(self) -> int:
        zero_bits = self.bits if self.zero_points.dtype == np.uint8 else 32
        codes_and_zeros = self.codes.size * self.bits + self.zero_points.size * zero_bits
        return math.ceil(codes_and_zeros / 8) + self.scales.size * 4


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """`values[row group, code]`: arbitrary values. `codes` are uint8 [out, in]; `values` float32 [groups, levels],
    where groups is 1 (per tensor) or out (per channel)."""

    codes: Array
    values: Array

    def decode(self) -> Array:
        rows = np.zeros(len(self.codes), np.intp) if len(self.values) == 1 else np.arange(len(self.codes))
        return np.asarray(self.values[rows[:, None], self.codes], np.float32)

    @property
    def size_bytes(self) -> int:
        bits = max(1, math.ceil(math.log2(self.values.shape[1])))
        return math.ceil(self.codes.size * bits / 8) + self.values.size * 4


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """A sum of forms of one shape, such as the two residual binary codes of `two-bit`."""

    planes: tuple[Uniform, ...]

    def decode(self) -> Array:
        return np.asarray(sum(plane.decode() for plane in self.planes), np.float32)

    @property
    def size_bytes(self) -> int:
        return sum(plane.size_bytes for plane in self.planes)


Form: TypeAlias = Dense | Uniform | Codebook | Planes


@dataclass(frozen=True, slots=True)
class Activation:
    """How a layer's input is rounded: x -> scale * (clip(round(x / scale) + zero_point, 0, 2**bits - 1) - zero_point).

    A zero point may lie between two codes, as 0.5 for {-1, 1} in one bit; then it is added before the rounding.
    `dynamic` finds scale and zero point in each call; then those given here are not used.
    """

    scale: float = 1.0
    zero_point: float = 0
    bits: int = 8
    dynamic: bool = False

    def apply(self, values: Array) -> Array:
        """float32 of any shape, as the layer sees it."""
        zero, steps = np.float32(self.zero_point), values / np.float32(self.scale)
        codes = np.round(steps) + zero if zero == np.round(zero) else np.round(steps + zero)
        return np.asarray((np.clip(codes, 0, 2**self.bits - 1) - zero) * np.float32(self.scale), np.float32)
