"""V2's classification extension: an output's largest values as strings `value:index[:label]`; pure, for both wires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from tidemill.core.contracts import Served
from tidemill.core.errors import MalformedRequest, WrongDatatype
from tidemill.core.tensor import Array, Signature, Tensors
from tidemill.core.text import short

COUNT_MAX = 2**31 - 1
UNORDERED = ("BYTES", "BOOL")


def count_of(output: str, given: object) -> int:
    """The parameter `classification` of `output`; 0 asks for the tensor as it is. Raises `MalformedRequest`."""
    if type(given) is not int or not 0 <= given <= COUNT_MAX:
        raise MalformedRequest(f"output {short(output)}: classification is {short(given)}, expected how many")
    return given


def check(signature: Signature, counts: Mapping[str, int]) -> None:
    """Raises `WrongDatatype` for an output without an order."""
    for spec in signature.outputs:
        if spec.name in counts and spec.datatype in UNORDERED:
            raise WrongDatatype(f"output {spec.name!r} is {spec.datatype}, of which there are no largest values")


def replaced(tensors: Tensors, counts: Mapping[str, int], served: Served) -> Tensors:
    """`tensors` with the outputs in `counts` as their so many largest values: strings [rows, count] where dimension 0
    is a batch, else [count]."""
    batched, labels = served.running().rows_max > 0, served.labels
    return {
        name: largest(array, counts[name], batched, labels) if name in counts else array
        for name, array in tensors.items()
    }


def largest(array: Array, count: int, batched: bool, labels: Sequence[str] = ()) -> Array:
    """The `count` largest values (all where there are fewer), the largest first and NaN last; of equal ones the
    earlier. `labels` are told where there is one for each value."""
    rows, width = (array.shape[0], prod(array.shape[1:])) if batched and array.ndim else (1, array.size)
    flat = array.reshape(rows, width)
    taken = min(count, width)
    whole = flat.dtype.kind in "iu"
    if whole:  # a minus would wrap around: the order of the mirror image, mirrored
        order = width - 1 - np.argsort(flat[:, ::-1], axis=1, kind="stable")[:, ::-1]
    else:
        with np.errstate(invalid="ignore"):  # a NaN may be one that signals
            flat = flat.astype(np.float64)
        order = np.argsort(-flat, axis=1, kind="stable")
    order = order[:, :taken]
    values = np.take_along_axis(flat, order, axis=1)
    found = np.empty(order.size, object)
    form = "%d:%d" if whole else "%f:%d"
    pairs = zip(values.ravel().tolist(), order.ravel().tolist(), strict=True)
    if len(labels) == width:
        found[:] = [f"{form % pair}:{labels[pair[1]]}".encode() for pair in pairs]
    else:
        found[:] = [(form % pair).encode() for pair in pairs]
    return found.reshape(order.shape if batched else (taken,))
