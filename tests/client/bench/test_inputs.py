"""Inputs that a load sends fit the model they are made for, and are what a file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.client.bench import inputs
from tidemill.core.errors import InvalidSetting, UnknownInput, WrongValue
from tidemill.core.tensor import DTYPES, Signature, TensorSpec

specs = st.builds(
    TensorSpec,
    st.uuids().map(str),
    st.sampled_from(sorted(DTYPES)),
    st.none() | st.lists(st.integers(-1, 3), max_size=3).map(tuple),
)
signatures = st.lists(specs, min_size=1, max_size=3).map(lambda several: Signature(tuple(several), ()))
PAIR = Signature((TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))), ())


@given(signatures, st.integers(1, 4), st.none() | st.integers(0, 9))
def test_made_inputs_fit_the_signature(signature: Signature, rows: int, seed: int | None) -> None:
    made = inputs.made(signature, rows=rows, seed=seed)
    signature.check(made)
    again = inputs.made(signature, rows=rows, seed=seed)
    assert all(np.array_equal(made[name], again[name]) for name in made)


def test_zeros_are_zeros_and_random_ones_are_not() -> None:
    assert not inputs.made(PAIR, rows=8, seed=None)["a"].any()
    drawn = inputs.made(PAIR, rows=8, seed=1)
    assert drawn["a"].any()
    assert set(drawn["b"].tolist()) <= {0, 1}


def test_a_shape_fills_free_sides_and_no_others() -> None:
    made = inputs.made(PAIR, shapes={"a": [5, 2]})
    assert (made["a"].shape, made["b"].shape) == ((5, 2), (1,))
    with pytest.raises(InvalidSetting):
        inputs.made(PAIR, shapes={"a": [5, 3]})
    with pytest.raises(UnknownInput):
        inputs.made(PAIR, shapes={"c": [1]})
    with pytest.raises(InvalidSetting):
        inputs.made(PAIR, shapes={"a": [2**28, 2]})


def test_files_are_read(tmp_path: Path) -> None:
    want = {"a": np.array([[1.0, 2.0]], np.float32), "b": np.array([7], np.int64)}
    np.savez(tmp_path / "in.npz", **want)
    (tmp_path / "named.json").write_text(json.dumps({"inputs": {"a": [[1, 2]], "b": [7]}}))
    (tmp_path / "plain.json").write_text(json.dumps({"a": [[1, 2]], "b": [7]}))
    v2 = [{"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}, {"name": "b", "shape": [1], "data": [7]}]
    (tmp_path / "v2.json").write_text(json.dumps({"inputs": v2}))
    for name in ("in.npz", "named.json", "plain.json", "v2.json"):
        read = inputs.read(tmp_path / name, PAIR)
        PAIR.check(read)
        assert all(np.array_equal(read[each], want[each]) for each in want), name
    np.save(tmp_path / "one.npy", want["a"])
    assert np.array_equal(inputs.read(tmp_path / "one.npy", PAIR)["a"], want["a"])


def test_text_is_read_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"x": ["mühle", "tide"]}')
    signature = Signature((TensorSpec("x", "BYTES", (-1,)),), ())
    read = inputs.read(tmp_path / "in.json", signature)
    assert read["x"].tolist() == ["mühle".encode(), b"tide"]
    signature.check(read)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.npz", b"no zip"), ("a.json", b"{"), ("a.json", b"[1]"), ("a.json", b'{"inputs": 3}'), ("a.txt", b"1"),
     ("a.json", b'{"a": [[1], [2, 3]], "b": [1]}')],
)  # fmt: skip
def test_a_file_that_holds_none_is_refused_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WrongValue, match=name):
        inputs.read(tmp_path / name, PAIR)


def test_rows_are_those_of_a_batch() -> None:
    batched = Signature(PAIR.inputs, (TensorSpec("y", "FP32", (-1,)),))
    assert inputs.rows_of(batched, inputs.made(batched, rows=3)) == 3
    state = Signature((TensorSpec("s", "FP32", (2, 4)),), (TensorSpec("y", "FP32", (2,)),))
    assert inputs.rows_of(state, inputs.made(state)) == 1
