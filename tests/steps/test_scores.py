from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tidemill.core.errors import BadMedia, WrongShape
from tidemill.core.tensor import Array
from tidemill.steps.chain import build
from tidemill.steps.scores import Show, Sigmoid, softmax
from tidemill.steps.speech import Segments
from tidemill.steps.step import Place
from tidemill.steps.vectors import Pool, Scale, Unit

FINITE = arrays(np.float32, (2, 5), elements=st.floats(-1e4, 1e4, width=32))


@given(FINITE)
def test_softmax_is_shares_in_the_same_order(scores: Array) -> None:
    shares = softmax(scores)
    assert np.allclose(shares.sum(axis=-1), 1, atol=1e-4)
    order = np.argsort(scores, axis=-1, kind="stable")
    assert (np.diff(np.take_along_axis(shares, order, axis=-1)) >= 0).all()


def test_sigmoid_holds_at_its_ends() -> None:
    found = Sigmoid(input="x").apply({"x": np.array([-1e4, 0, 1e4], np.float32)})["x"]
    assert found.tolist() == [0, 0.5, 1]


@pytest.fixture
def named(tmp_path: Path) -> Place:
    (tmp_path / "labels.txt").write_text("ebb\nflow\nslack\n", "utf-8")
    return Place(tmp_path)


def test_the_best_come_first_with_their_names(named: Place) -> None:
    chain = build([{"step": "top", "input": "y", "k": 2}], named)
    assert chain({"y": np.array([[0.1, 0.7, 0.2]])})["predictions"] == [
        {"label": "flow", "score": 0.7},
        {"label": "slack", "score": 0.2},
    ]
    assert len(chain({"y": np.zeros((4, 3))})["predictions"]) == 4
    with pytest.raises(BadMedia, match=r"gives 2 scores, labels.txt names 3"):
        chain({"y": np.zeros((1, 2))})


def test_every_class_above_the_threshold(named: Place) -> None:
    table: dict[str, Any] = {"step": "threshold", "input": "y", "least": 0.5, "labels": "labels.txt"}
    found = build([table], named)({"y": np.array([[0.6, 0.1, 0.9]])})["predictions"]
    assert [each["label"] for each in found] == ["slack", "ebb"]


def test_pooling_counts_the_tokens_that_are_there() -> None:
    states = np.array([[[1, 3], [3, 5], [99, 99]]], np.float32)
    found = Pool(input="h").apply({"h": states, "attention_mask": np.array([[1, 1, 0]])})["vector"]
    assert found.tolist() == [[2, 4]]
    with pytest.raises(WrongShape):
        Pool(input="h").apply({"h": states, "attention_mask": np.ones((1, 2))})


@given(FINITE)
def test_unit_vectors_have_length_one_or_none(vectors: Array) -> None:
    length = np.linalg.norm(Unit(input="v").apply({"v": vectors})["v"], axis=-1)
    there = np.linalg.norm(vectors.astype(np.float64), axis=-1) > 1e-9
    assert np.allclose(length[there], 1, atol=1e-5)


def test_scaling_back() -> None:
    assert Scale(input="y", factor=2, offset=300).apply({"y": np.array([1.0])})["y"].tolist() == [302]


def test_what_is_shown_is_what_is_named() -> None:
    values = {"a": np.ones((1, 2)), "b": [1]}
    assert Show(values=("a",), row=True).apply(values)["predictions"].tolist() == [1, 1]
    assert set(Show(values=("a", "b")).apply(values)["predictions"]) == {"a", "b"}


def heard(probabilities: list[float], **options: Any) -> list[dict[str, float]]:
    values = {"p": np.array(probabilities, np.float32), "seconds": len(probabilities) * 0.1}
    step = Segments(input="p", window_ms=100, speech_ms=200, silence_ms=200, **options)
    return [{key: each[key] for key in ("start_s", "end_s")} for each in step.apply(values)["predictions"]]


@pytest.mark.parametrize(
    ("probabilities", "spans"),
    [
        ([0, 0, 0], []),
        ([0, 0.9, 0.9, 0.9, 0, 0, 0], [(0.1, 0.4)]),
        ([0, 0.9, 0.9, 0, 0.9, 0, 0], [(0.1, 0.5)]),
        ([0, 0.9, 0, 0, 0, 0, 0], []),
        ([0.9, 0.9, 0.4, 0.9, 0.9], [(0.0, 0.5)]),
        ([0.9, 0.9, 0, 0, 0.9, 0.9], [(0.0, 0.2), (0.4, 0.6)]),
        ([0.4, 0.4, 0.4], []),
    ],
)
def test_speech_is_where_it_is_likely_and_lasts(probabilities: list[float], spans: list[tuple[float, float]]) -> None:
    assert heard(probabilities) == [{"start_s": start, "end_s": end} for start, end in spans]
