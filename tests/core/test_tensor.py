from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import MissingInput, UnknownInput, UnknownOutput, WrongDatatype, WrongShape
from tidemill.core.tensor import DATATYPES, DTYPES, Signature, TensorSpec, rows

X = TensorSpec("x", "FP32", (-1, 2))
N = TensorSpec("n", "INT64", (-1,))
Y = TensorSpec("y", "FP32", (-1, 2))
TWO = Signature((X, N), (Y,))
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def good() -> dict[str, np.ndarray]:
    return {"x": np.zeros((3, 2), np.float32), "n": np.zeros(3, np.int64)}


def test_every_datatype_goes_there_and_back() -> None:
    assert {DATATYPES[dtype]: dtype for dtype in DTYPES.values()} == DTYPES


def test_tensors_that_fit_pass_in_any_order() -> None:
    TWO.check(good())
    TWO.check(dict(reversed(good().items())))


def test_missing_input_is_told_apart_from_unknown() -> None:
    tensors = good()
    del tensors["n"]
    with pytest.raises(MissingInput, match=r"'n'.*x FP32 \[-1, 2\]"):
        TWO.check(tensors)
    with pytest.raises(UnknownInput, match="'z'"):
        TWO.check(good() | {"z": np.zeros(1)})
    with pytest.raises(MissingInput):
        TWO.check({})


@pytest.mark.parametrize("dtype", ["f8", "i4", ">f4", "S3", object, "c8"])
def test_other_datatype_is_refused_byte_order_included(dtype: object) -> None:
    with pytest.raises(WrongDatatype, match="expected FP32"):
        TWO.check(good() | {"x": np.zeros((3, 2), dtype)})  # type: ignore[call-overload]


@pytest.mark.parametrize("shape", [(), (3,), (3, 3), (3, 2, 1), (2,), (0, 3)])
def test_other_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongShape) as caught:
        TWO.check(good() | {"x": np.zeros(shape, np.float32)})
    assert str(list(shape)) in caught.value.message
    assert "[-1, 2]" in caught.value.message


def test_unknown_output_is_refused_and_none_is_all() -> None:
    TWO.check_outputs(())
    TWO.check_outputs(("y", "y"))
    with pytest.raises(UnknownOutput, match=r"'x'.*y FP32"):
        TWO.check_outputs(("y", "x"))


@given(shapes, st.data())
def test_spec_admits_a_shape_however_many_sides_are_free(shape: tuple[int, ...], data: st.DataObject) -> None:
    free = data.draw(st.sets(st.integers(0, 3)))
    spec = TensorSpec("x", "FP32", tuple(-1 if place in free else side for place, side in enumerate(shape)))
    assert spec.admits(shape)
    assert not spec.admits((*shape, 1))
    assert TensorSpec("x", "FP32", None).admits(shape)


@given(shapes, shapes)
def test_fixed_spec_admits_its_shape_alone(mine: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert TensorSpec("x", "FP32", mine).admits(other) == (mine == other)


@pytest.mark.parametrize(
    ("inputs", "outputs", "batched"),
    [
        (((-1, 2),), ((-1,),), True),
        (((-1, 2), (-1,)), ((-1,),), True),
        (((1, 2),), ((-1,),), False),
        (((-1, 2),), ((2,),), False),
        (((-1, 2),), ((),), False),
        (((),), ((-1,),), False),
        ((None,), ((-1,),), False),
        (((-1,),), (None,), False),
        ((), ((-1,),), False),
    ],
)
def test_batch_dimension_is_free_on_every_side(inputs: tuple, outputs: tuple, batched: bool) -> None:  # type: ignore[type-arg]
    def specs(all_shapes: tuple) -> tuple[TensorSpec, ...]:  # type: ignore[type-arg]
        return tuple(TensorSpec(str(place), "FP32", shape) for place, shape in enumerate(all_shapes))

    assert Signature(specs(inputs), specs(outputs)).batched is batched


def test_rows_are_those_that_all_share() -> None:
    assert rows({"x": np.zeros((3, 2)), "n": np.zeros(3)}) == 3
    assert rows({"x": np.zeros((3, 2)), "n": np.zeros(2)}) == 0
    assert rows({"x": np.zeros(3), "n": np.zeros(())}) == 0
    assert rows({"x": np.zeros((0, 2))}) == 0
    assert rows({}) == 0


def test_misspelt_key_of_a_spec_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="sahpe"):
        msgspec.convert({"name": "x", "datatype": "FP32", "shape": [1], "sahpe": [2]}, TensorSpec)
