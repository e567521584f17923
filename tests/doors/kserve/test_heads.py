"""A binary body whose head is known says what it says when its head is read: the law, over random bodies."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import TidemillError
from tidemill.core.tensor import DTYPES, Signature, Tensors, TensorSpec
from tidemill.doors.kserve import heads, translate

KINDS = ("FP32", "INT64", "UINT8", "FP16", "BF16", "BOOL", "BYTES")
SIGNATURES = tuple(
    Signature(
        inputs=(TensorSpec("x", kind, (-1, 2)), TensorSpec("y", "FP32", (-1,))),
        outputs=(TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", kind, (-1,))),
    )
    for kind in KINDS
)
Body = tuple[Signature, bytes, int]


def body(
    signature: Signature, rows: tuple[int, int], seed: int, request: dict[str, Any], lie: int = 0, cut: int = 0
) -> Body:
    """Binary tensors for both inputs; `lie` is added to a size that is claimed, `cut` bytes are missing."""
    draw = np.random.default_rng(seed)
    inputs, tail = [], b""
    for spec, shape in zip(signature.inputs, ((rows[0], 2), (rows[1],)), strict=True):
        if spec.datatype == "BYTES":
            raw = translate.to_bytes(np.array([b"w" * draw.integers(3) for _ in range(2 * rows[0])] + [None])[:-1])
        elif spec.datatype == "BOOL":
            raw = draw.integers(0, 2, shape).astype(bool).tobytes()
        else:
            raw = draw.integers(0, 100, shape).astype(DTYPES[spec.datatype]).tobytes()
        told = {"name": spec.name, "datatype": spec.datatype, "shape": shape}
        inputs.append({**told, "parameters": {"binary_data_size": len(raw) + lie}})
        tail += raw
    head = json.dumps({"inputs": inputs, **request}).encode()
    return signature, head + tail[: len(tail) - cut], len(head)


bodies = st.builds(
    body,
    st.sampled_from(SIGNATURES),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(0, 9),
    st.sampled_from(
        [
            {},
            {"id": "mine"},
            {"parameters": {"binary_data_output": True}},
            {"parameters": {"timeout": 5}},
            {"outputs": [{"name": "b", "parameters": {"binary_data": True}}]},
            {"outputs": [{"name": "a", "parameters": {"classification": 2}}]},
            {"outputs": [{"name": "c"}]},
        ]
    ),
    lie=st.sampled_from([0, 0, 0, 4]),
    cut=st.sampled_from([0, 0, 0, 1]),
)


def said(given: Body) -> Any:
    """What a body says, or the code of what is wrong with it."""
    try:
        asked = translate.question(*given)
    except TidemillError as error:
        return error.code, error.message
    tensors = {name: (a.dtype, a.shape, list(a.ravel())) for name, a in asked.work.inputs.items()}
    binary = None if asked.binary is None else tuple(asked.binary)
    return tensors, asked.work.outputs, asked.id, asked.timeout_s, binary, dict(asked.classes or {})


@given(st.lists(bodies, max_size=20))
def test_a_known_head_says_what_it_says_when_it_is_read(given: list[Body]) -> None:
    heads._KNOWN.clear()
    known = [said(each) for each in given]
    for each, was in zip(given, known, strict=True):
        heads._KNOWN.clear()
        assert said(each) == was


def test_a_head_is_known_to_its_own_signature_and_length_alone() -> None:
    signature, whole, length = body(SIGNATURES[0], (2, 2), 1, {})
    translate.question(signature, whole, length)
    assert heads.find(signature, whole, length) is not None
    assert heads.find(signature, whole + b"\0", length) is None
    other = Signature(signature.inputs, signature.outputs)
    assert heads.find(other, whole, length) is None


@pytest.mark.parametrize("kind", ["BOOL", "BYTES"])
def test_heads_whose_numbers_are_looked_at_are_read_each_time(kind: str) -> None:
    signature, whole, length = body(SIGNATURES[KINDS.index(kind)], (2, 2), 1, {})
    translate.question(signature, whole, length)
    assert heads.find(signature, whole, length) is None


def test_heads_are_bounded() -> None:
    heads._KNOWN.clear()
    for rows in range(2 * heads.HEADS_MAX):
        translate.question(*body(SIGNATURES[0], (rows + 1, 1), 1, {}))
    assert len(heads._KNOWN) <= heads.HEADS_MAX


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.sampled_from(
            [np.zeros((2, 0), np.float32), np.ones((1, 2), np.int64), np.ones((), bool), np.array([b"w", b""], object)]
        ),
    ),
    st.sampled_from([None, ("a",), ("a", "b", "c"), ()]),
    st.sampled_from(["", "mine"]),
)
def test_an_answer_is_what_it_would_be_in_pieces(tensors: Tensors, binary: Any, id: str) -> None:
    asked = translate.Question(translate.Predict({}), id, None, binary)
    whole, length = translate.answer("m", 3, asked, tensors)
    told = json.loads(whole if length < 0 else whole[:length])
    assert (told["model_name"], told["model_version"], told.get("id", "")) == ("m", "3", id)
    assert [each["name"] for each in told["outputs"]] == list(tensors)
    at = max(length, 0)
    for each, array in zip(told["outputs"], tensors.values(), strict=True):
        assert tuple(each["shape"]) == array.shape
        if binary is None or each["name"] in binary:
            size = each["parameters"]["binary_data_size"]
            assert whole[at : at + size] == translate.to_bytes(array)
            at += size
        else:
            assert "data" in each
    assert length < 0 or at == len(whole)
