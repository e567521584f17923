from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidemill.core.errors import FetchFailed
from tidemill.core.tensor import Array
from tidemill.kit.safetensors import tensors

NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}


def packed(header: object, values: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + values


def written(given: dict[str, Array]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    values = b""
    for name, array in given.items():
        end = len(values) + array.nbytes
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [len(values), end],
        }
        values += array.tobytes()
    return packed(header, values)


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"),
        st.sampled_from(list(NAMES)).flatmap(
            lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_what_was_written_is_read(given: dict[str, Array]) -> None:
    found = tensors(written(given))
    assert set(found) == set(given)
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"abc", "3 bytes"),
        ((2**40).to_bytes(8, "little") + b"{}", "header of 1099511627776"),
        (packed([1]), "not understood"),
        (packed({"a": {"dtype": "F32"}}), "not understood"),
        (packed({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"x"), "'F8_E4M3'"),
        (packed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "takes 8 bytes"),
        (packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(4)), "4 to 8 of 4"),
        (packed({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)), r"\[-1\]"),
    ],
)
def test_what_is_no_safetensors_file_is_a_clear_error(data: bytes, told: str) -> None:
    with pytest.raises(FetchFailed, match=told):
        tensors(data)
