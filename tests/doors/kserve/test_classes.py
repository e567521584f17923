"""The classification extension: the largest values of an output as strings."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_strategies import arrays
from tidemill.core.errors import MalformedRequest, WrongDatatype
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.doors.kserve import classes

ORDERED = [name for name in DTYPES if name not in classes.UNORDERED]


def texts(array: np.ndarray, count: int, batched: bool = False, labels: tuple[str, ...] = ()) -> list:
    found = classes.largest(array, count, batched, labels)
    return np.vectorize(bytes.decode, otypes=[object])(found).tolist() if found.size else found.tolist()


def test_the_largest_come_first_with_their_places() -> None:
    assert texts(np.array([1, 5, 10, 4], np.float32), 2) == ["10.000000:2", "5.000000:1"]
    assert texts(np.array([1, 5, 10, 4], np.int32), 3) == ["10:2", "5:1", "4:3"]


def test_rows_of_a_batch_are_classified_apart() -> None:
    assert texts(np.array([[1, 2], [4, 3]], np.int64), 1, batched=True) == [["2:1"], ["4:0"]]
    assert texts(np.array([[1, 2], [4, 3]], np.int64), 1) == ["4:2"]
    assert texts(np.array([7, 8], np.int64), 5, batched=True) == [["7:0"], ["8:0"]]


def test_labels_are_told_where_there_is_one_for_each_value() -> None:
    scores = np.array([[0.25, 0.75]], np.float32)
    assert texts(scores, 2, True, ("apple", "Birne")) == [["0.750000:1:Birne", "0.250000:0:apple"]]
    assert texts(scores, 1, True, ("apple",)) == [["0.750000:1"]]


def test_of_equal_values_the_earlier_comes_first_and_nan_last() -> None:
    assert texts(np.array([2, 3, 3, 2], np.uint8), 4) == ["3:1", "3:2", "2:0", "2:3"]
    assert texts(np.array([np.nan, -np.inf, 1], np.float64), 3) == ["1.000000:2", "-inf:1", "nan:0"]


def test_whole_numbers_at_their_ends_keep_their_order_and_value() -> None:
    array = np.array([-(2**63), 2**63 - 1, 0], np.int64)
    assert texts(array, 3) == [f"{2**63 - 1}:1", "0:2", f"{-(2**63)}:0"]
    assert texts(np.array([2**64 - 1, 0], np.uint64), 2) == [f"{2**64 - 1}:0", "0:1"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_has_an_order_too(dtype: type) -> None:
    assert texts(np.array([0.5, 1.5], dtype), 1) == ["1.500000:1"]


@given(st.sampled_from(ORDERED).flatmap(arrays), st.integers(1, 6), st.booleans())
def test_any_tensor_of_any_shape_gives_as_many_as_it_has(array: np.ndarray, count: int, batched: bool) -> None:
    found = classes.largest(array, count, batched)
    if batched and array.ndim:
        rows, width = array.shape[0], int(np.prod(array.shape[1:]))
        assert found.shape == (rows, min(count, width))
    else:
        assert found.shape == ((1, min(count, array.size)) if batched else (min(count, array.size),))
    flat = array.reshape(found.shape[0] if found.ndim == 2 else 1, -1) if array.size else array
    for row, told in zip(flat, np.atleast_2d(found), strict=False):
        places = [int(each.split(b":")[1]) for each in told]
        assert len(set(places)) == len(places)
        with np.errstate(invalid="ignore"):
            values = row[places].astype(np.float64)
        values = values[~np.isnan(values)]
        assert (values[:-1] >= values[1:]).all()


@pytest.mark.parametrize("given_count", [-1, 2**31, True, "3", 1.0, None])
def test_a_count_is_a_number(given_count: object) -> None:
    with pytest.raises(MalformedRequest, match="output 'y': classification is"):
        classes.count_of("y", given_count)


@pytest.mark.parametrize("datatype", classes.UNORDERED)
def test_what_has_no_order_is_refused(datatype: str) -> None:
    signature = Signature((), (TensorSpec("y", datatype, (-1,)), TensorSpec("z", "FP32", (-1,))))
    classes.check(signature, {"z": 1})
    with pytest.raises(WrongDatatype, match=f"'y' is {datatype}"):
        classes.check(signature, {"y": 1})
