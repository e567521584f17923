"""Random protobuf messages of any class, and random tensors of every datatype."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from tidemill.core.tensor import DTYPES, Array

DEPTH_MAX = 4
F = FieldDescriptor
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    F.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    F.TYPE_UINT32: st.integers(0, 2**32 - 1),
    F.TYPE_UINT64: st.integers(0, 2**64 - 1),
    F.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    F.TYPE_DOUBLE: st.floats(allow_nan=False),
    F.TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    F.TYPE_BYTES: st.binary(max_size=8),
}


@st.composite
def messages(draw: st.DrawFn, kind: Any, depth: int = 0) -> Any:
    """A message of the class `kind`; about half of the fields of each are set, one at most of each oneof."""
    made = kind()
    fill(draw, made, kind.DESCRIPTOR, depth)
    return made


def fill(draw: st.DrawFn, made: Any, descriptor: Descriptor, depth: int) -> None:
    for field in descriptor.fields:
        if field.containing_oneof is not None and made.WhichOneof(field.containing_oneof.name):
            continue
        if draw(st.booleans()):
            set_field(draw, made, field, depth)


def set_field(draw: st.DrawFn, made: Any, field: FieldDescriptor, depth: int) -> None:
    holder = getattr(made, field.name)
    if field.message_type is None:
        scalar = value_of(field)
        if field.is_repeated:
            holder.extend(draw(st.lists(scalar, max_size=3)))
        else:
            setattr(made, field.name, draw(scalar))
    elif depth >= DEPTH_MAX:
        return
    elif field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for each in draw(st.lists(value_of(key), max_size=2, unique=True)):
            if value.message_type is None:
                holder[each] = draw(value_of(value))
            else:
                fill(draw, holder[each], value.message_type, depth + 1)
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            fill(draw, holder.add(), field.message_type, depth + 1)
    else:
        holder.SetInParent()
        fill(draw, holder, field.message_type, depth + 1)


def value_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.type]


@st.composite
def arrays(draw: st.DrawFn, datatype: str, shape: tuple[int, ...] | None = None) -> Array:
    """Any bits at all, NaN and -0 included."""
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    count, dtype = prod(shape), DTYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        return array.reshape(shape)
    if datatype == "BOOL":
        return np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool).reshape(shape)
    size = count * dtype.itemsize
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)


def named_arrays(datatypes: list[str] | None = None) -> st.SearchStrategy[dict[str, Array]]:
    of_any = st.sampled_from(datatypes or list(DTYPES)).flatmap(arrays)
    return st.dictionaries(st.text("abc", min_size=1, max_size=3), of_any, max_size=3)


def same(one: Array, other: Array) -> bool:
    """Datatype, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool(one.ravel().tolist() == other.ravel().tolist())
    return one.tobytes() == other.tobytes()
