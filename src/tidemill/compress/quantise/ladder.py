"""What the solvers of this folder need of a set of values that weights may take; a protocol, used in workers."""

from __future__ import annotations

from typing import Protocol

from tidemill.core.tensor import Array


class Ladder(Protocol):
    """Ascending rungs for each weight, numbered 0 to `top`; codes are float64 arrays of whole numbers."""

    @property
    def top(self) -> int: ...

    @property
    def block(self) -> int:
        """Columns that share rungs."""

    def codes(self, values: Array, column: int) -> Array:
        """The nearest rungs for the values [out] of one column."""

    def all_codes(self, values: Array) -> Array:
        """The nearest rungs for values [out, in]."""

    def values(self, codes: Array, column: int) -> Array:
        """What the codes [out] of one column stand for."""

    def decode(self, codes: Array) -> Array:
        """What codes [out, in] stand for."""

    def between(self, places: Array) -> tuple[Array, Array]:
        """For places between rungs (float32 [out, in]): the value there, and its slope."""

    def start(self, values: Array) -> Array:
        """The places (float32) of values, those outside the rungs at the nearest end."""

    def part(self, rows: slice) -> Ladder:
        """That of some rows; the rungs are shared."""

    def refit(self, codes: Array, weight: Array, matrix: Array) -> Array:
        """Moves the rungs to lower tr(ΔW H ΔWᵀ) with these codes, which come back renumbered where rungs passed each
        other."""
