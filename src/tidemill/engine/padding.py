"""Requests of different lengths in one batch: the shorter ones are padded, and what comes out is cut back; pure.

Only for a model whose mask tells it which places are padding: that is declared in its `tidemill.toml`, and tried when
it is loaded (`probe.padding_holds`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec
import numpy as np

from tidemill.core.errors import RefusedModel
from tidemill.core.package import Padding
from tidemill.core.tensor import Array, Signature, Tensors


class Padder(msgspec.Struct, frozen=True):
    """`fills`: each padded input with what it is padded with. `outputs`: those that are as long as the inputs.
    `waste_max`: share of the places of a batch that may be padding."""

    mask: str
    axis: int
    fills: dict[str, float]
    outputs: frozenset[str]
    waste_max: float

    def length(self, inputs: Tensors) -> int:
        """Of all padded inputs; 0 when they differ, and such a request runs singly."""
        lengths = {inputs[name].shape[self.axis] for name in self.fills}
        return lengths.pop() if len(lengths) == 1 else 0

    def joining_key(self, inputs: Tensors, outputs: tuple[str, ...]) -> Hashable:
        """Equal for requests that differ in dimension 0 and in their length only, and want the same outputs."""
        return (tuple((name, self._others(name, array)) for name, array in sorted(inputs.items())), outputs)

    def _others(self, name: str, array: Array) -> tuple[int, ...]:
        shape = array.shape
        return (*shape[1 : self.axis], -1, *shape[self.axis + 1 :]) if name in self.fills else shape[1:]

    def pad(self, inputs: Tensors, length: int) -> dict[str, Array]:
        """`inputs`, as long as `length`."""
        return {name: self._padded(array, length, name) for name, array in inputs.items()}

    def _padded(self, array: Array, length: int, name: str) -> Array:
        if name not in self.fills or array.shape[self.axis] == length:
            return array
        shape = list(array.shape)
        shape[self.axis] = length
        whole = np.full(shape, self.fills[name], array.dtype)
        whole[self._front(array.shape[self.axis])] = array
        return whole

    def cut(self, outputs: Tensors, length: int) -> dict[str, Array]:
        """`outputs` of a padded row, without what belongs to the padding."""
        return {
            name: np.ascontiguousarray(array[self._front(length)]) if name in self.outputs else array
            for name, array in outputs.items()
        }

    def _front(self, length: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(length))


def padder(signature: Signature, wish: Padding) -> Padder:
    """Hold what `tidemill.toml` declares against the model's `signature`.

    Padded is every input whose dimension `axis` is free, cut back every output whose is. Raises `RefusedModel`.
    """
    inputs = {spec.name: spec for spec in signature.inputs if _free(spec.shape, wish.axis)}
    for name in (wish.mask, *wish.values):
        if name not in inputs:
            free = ", ".join(inputs) or "none"
            raise RefusedModel(
                f"[batching.padding] names {name!r}, which is no input with a free dimension {wish.axis}; {free} are"
            )
        if inputs[name].datatype == "BYTES":
            raise RefusedModel(f"[batching.padding] cannot pad {name!r}: it holds strings")
    fills = {name: wish.values.get(name, 0.0) for name in inputs}
    return Padder(
        wish.mask,
        wish.axis,
        fills,
        frozenset(spec.name for spec in signature.outputs if _free(spec.shape, wish.axis)),
        wish.waste_max,
    )


def _free(shape: tuple[int, ...] | None, axis: int) -> bool:
    return shape is not None and len(shape) > axis and shape[axis] == -1


def longest(lengths: Sequence[int]) -> int:
    """0 when nothing is padded: all are equal."""
    return max(lengths) if len(set(lengths)) > 1 else 0
