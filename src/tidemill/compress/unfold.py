"""From a tensor in the graph to the rows x that a layer multiplies; pure.

A convolution's input becomes the patches that its kernel sees. Tokens that the attention mask hides are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.compress.layers import Layer, attributes
from tidemill.core.tensor import Array

if TYPE_CHECKING:
    from tidemill.compress.graph import Graph

MASK = "attention_mask"


@dataclass(frozen=True, slots=True)
class Unfolding:
    """How a layer reads its input. Layers of one stage with equal unfoldings have equal moments.

    `axis` is where the features of a matrix lie (-1, or -2 for a constant on the left); the others are a convolution's.
    """

    features: int
    groups: int = 1
    axis: int = -1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    def rows(self, values: Array, mask: Array | None = None, step: int = 1) -> Array:
        """float32 [groups, rows, features], C-contiguous. Of a convolution's places only every `step`-th is taken."""
        if self.kernel:
            return self._patches(np.asarray(values, np.float32), step)
        shown = None if mask is None else shown_rows(values, mask, self.axis)
        flat = np.moveaxis(values, self.axis, -1).reshape(-1, self.features)
        if shown is not None:
            flat = flat[shown]
        return np.ascontiguousarray(flat, np.float32)[None]

    def _patches(self, values: Array, step: int) -> Array:
        rank = len(self.kernel)
        begins, ends = self._padding(values.shape[2:])
        values = np.pad(values, ((0, 0), (0, 0), *zip(begins, ends, strict=True)))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        view = np.lib.stride_tricks.sliding_window_view(values, reach, axis=tuple(range(2, 2 + rank)))
        every = tuple(slice(None, None, s) for s in self.strides)
        within = tuple(slice(None, None, d) for d in self.dilations)
        where: tuple[slice, ...] = (slice(None), slice(None), *every, *within)
        view = view[where]
        count, channels = view.shape[:2]
        places = int(np.prod(view.shape[2 : 2 + rank]))
        taken = np.unravel_index(np.arange(0, places, step), view.shape[2 : 2 + rank])
        one_by_one: tuple[Any, ...] = (slice(None), slice(None), *taken)
        patches = view[one_by_one]  # [N, C, places, kernel...]
        patches = patches.reshape(count, self.groups, channels // self.groups, len(taken[0]), -1)
        patches = patches.transpose(1, 0, 3, 2, 4)  # [groups, N, places, channels, kernel]
        return np.ascontiguousarray(patches).reshape(self.groups, -1, self.features)

    def places(self, shape: tuple[int, ...]) -> int:
        """How many rows one item of a batch gives, before the mask."""
        if not self.kernel:
            return int(np.prod(shape[1:])) // self.features if len(shape) > 1 else 1
        begins, ends = self._padding(shape[2:])
        count = 1
        for at, side in enumerate(shape[2:]):
            reach = (self.kernel[at] - 1) * self.dilations[at] + 1
            count *= max((side + begins[at] + ends[at] - reach) // self.strides[at] + 1, 0)
        return count

    def _padding(self, sides: tuple[int, ...]) -> tuple[list[int], list[int]]:
        rank = len(self.kernel)
        if self.auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
            begins, ends = [], []
            for side, kernel, stride, dilation in zip(sides, self.kernel, self.strides, self.dilations, strict=True):
                whole = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
                less, more = whole // 2, whole - whole // 2
                begins.append(less if self.auto_pad == "SAME_UPPER" else more)
                ends.append(more if self.auto_pad == "SAME_UPPER" else less)
            return begins, ends
        if self.auto_pad == "VALID" or not self.pads:
            return [0] * rank, [0] * rank
        return list(self.pads[:rank]), list(self.pads[rank:])


def unfolding(graph: Graph, layer: Layer) -> Unfolding:
    """`graph` is one in which the layer is still as it was found."""
    if layer.op != "Conv":
        return Unfolding(layer.shape[1], axis=-1 if layer.operand == 1 else -2)
    told = attributes(graph.node(layer.name))
    kernel = (graph.shape(layer.weight) or ())[2:]
    rank = len(kernel)
    return Unfolding(
        layer.shape[1],
        layer.groups,
        kernel=kernel,
        strides=tuple(told.get("strides", [1] * rank)),
        dilations=tuple(told.get("dilations", [1] * rank)),
        pads=tuple(told.get("pads", [0] * 2 * rank)),
        auto_pad=str(told.get("auto_pad", "NOTSET")),
    )


def mask_of(feeds: Mapping[str, Any]) -> Array | None:
    """[N, T] of true where a token counts; None where the model has no such input."""
    given = feeds.get(MASK)
    return np.asarray(given) != 0 if given is not None and np.ndim(given) == 2 else None


def shown_rows(values: Array, mask: Array, axis: int = -1) -> Array | None:
    """Which rows of the flattened `values` are tokens that count; None where they are no [N, T, …] of this mask."""
    if axis != -1:
        return None
    if values.ndim >= 3 and values.shape[:2] == mask.shape:
        return np.repeat(mask.ravel(), int(np.prod(values.shape[2:-1])))
    # Some exports flatten [N, T, K] to [N·T, K] before a Gemm.
    if values.ndim == 2 and mask.shape[1] > 1 and len(values) == mask.size:
        return mask.ravel()
    return None
