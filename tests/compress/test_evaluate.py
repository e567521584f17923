from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tidemill.compress import metrics
from tidemill.compress.data import Data, Rows
from tidemill.compress.evaluate import Judge, Quality, compare, quality, run
from tidemill.core.errors import BadData, MetricFailed, RefusedModel
from tidemill.core.tensor import Array, Tensors


def linear(weight: Array, output: str = "logits") -> bytes:
    """output = x weight, and the sum of x beside it."""
    rows = ["rows"]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["x", "weight"], [output]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*rows, len(weight)])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, rows),
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [*rows, weight.shape[1]]),
        ],
        [
            numpy_helper.from_array(weight.astype(np.float32), "weight"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    return bytes(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()
    )


def echo() -> bytes:
    """Gives `values` [rows, tokens, 2] of each token, and takes a mask that it does not look at."""
    tokens = ["rows", "tokens"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["values"]),
            helper.make_node("Identity", ["mask"], ["same"]),
        ],
        "echo",
        [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in ("ids", "mask")],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, [*tokens, 2]),
            helper.make_tensor_value_info("same", TensorProto.INT64, tokens),
        ],
        [numpy_helper.from_array(np.arange(1, 21, dtype=np.float32).reshape(10, 2), "table")],
    )
    return bytes(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()
    )


def rows_of(x: Array, labels: Array | None = None) -> Rows:
    return Rows([{"x": row.astype(np.float32)} for row in x], 4, labels=labels)


def data_of(x: Array, labels: Array | None = None) -> Data:
    return Data(rows_of(x[:1]), rows_of(x, labels), "test", "arrays")


CHANCE = np.random.default_rng(0)
X = CHANCE.normal(size=(40, 6))
WEIGHT = CHANCE.normal(size=(6, 5))
LABELS = (X @ WEIGHT).argmax(axis=1)
WORSE = WEIGHT + CHANCE.normal(size=WEIGHT.shape) * 0.6


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_right_rows() -> None:
    labels = LABELS.copy()
    labels[:10] = (labels[:10] + 1) % 5
    found = quality(linear(WEIGHT), data_of(X, labels))
    assert found.metric == "accuracy"
    assert found.mean == 0.75
    assert found.per_row.tolist() == [0.0] * 10 + [1.0] * 30
    assert 0.55 < found.low < 0.75 < found.high < 0.95


@pytest.mark.parametrize("name", ["", "cosine", "agreement", "neighbours", "pearson"])
def test_model_is_wholly_like_itself(name: str) -> None:
    found = quality(linear(WEIGHT), data_of(X), name)
    assert found.metric == (name or "cosine")
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("name", ["cosine", "agreement", "neighbours", "pearson"])
def test_worse_model_is_worse_and_the_interval_tells_by_how_much(name: str) -> None:
    judge = Judge(linear(WEIGHT), data_of(X), name)
    found = judge.quality(linear(WORSE))
    compared = judge.compare(found)
    assert found.low <= found.mean <= found.high
    assert compared.low <= compared.difference <= compared.high < 0
    assert compared.kept == pytest.approx(found.mean)


def test_cosine_is_as_defined() -> None:
    found = quality(linear(WORSE), data_of(X), original=linear(WEIGHT))
    ours, theirs = X @ WORSE, X @ WEIGHT
    wanted = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(found.per_row, wanted, atol=1e-5)


def test_answer_of_nothing_but_zeros_is_like_itself_alone() -> None:
    nothing = np.zeros_like(WEIGHT)
    assert quality(linear(nothing), data_of(X)).mean == 1
    assert quality(linear(nothing), data_of(X), original=linear(WEIGHT)).mean == 0


def test_neighbours_are_those_of_plain_counting() -> None:
    ours, theirs = CHANCE.normal(size=(30, 4)), CHANCE.normal(size=(30, 4))

    def near(values: Array, row: int) -> set[int]:
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        return set([int(each) for each in np.argsort(-(unit @ unit[row])) if each != row][:10])

    wanted = [len(near(ours, row) & near(theirs, row)) / 10 for row in range(30)]
    assert metrics.neighbours({"y": ours}, {"y": theirs}, None).tolist() == wanted


def test_pearson_over_pairs_is_the_correlation_of_all_pairs() -> None:
    unit = X @ WEIGHT
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    people = unit @ unit.T + CHANCE.normal(size=(40, 40)) * 0.3
    people = (people + people.T) / 2
    found = quality(linear(WEIGHT), data_of(X, people), "pearson")
    upper = np.triu_indices(40, 1)
    assert found.mean == pytest.approx(np.corrcoef((unit @ unit.T)[upper], people[upper])[0, 1], abs=1e-5)
    assert found.low < found.mean < found.high
    assert found.per_row.shape == (40,)


def test_pearson_of_one_number_is_the_correlation_with_the_labels() -> None:
    one = WEIGHT[:, :1]
    labels = (X @ one)[:, 0] + CHANCE.normal(size=40)
    found = quality(linear(one), data_of(X, labels), "pearson")
    assert found.mean == pytest.approx(np.corrcoef((X @ one)[:, 0], labels)[0, 1], abs=1e-5)
    assert found.per_row.mean() == pytest.approx(found.mean, abs=1e-5)


def test_pearson_of_answers_always_alike_is_0() -> None:
    assert quality(linear(np.zeros((6, 1))), data_of(X, X[:, 0]), "pearson").mean == 0


# -- metrics of one's own ----------------------------------------------------------------------------------------------


def test_function_sees_every_output_those_of_the_original_and_labels() -> None:
    def near(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
        assert set(outputs) == set(reference) == {"logits", "sum"}
        assert labels is not None
        assert labels.tolist() == LABELS.tolist()
        np.testing.assert_allclose(outputs["sum"], X.sum(axis=1), atol=1e-4)
        return np.asarray(-np.abs(outputs["logits"] - reference["logits"]).max(axis=1))

    judge = Judge(linear(WEIGHT), data_of(X, LABELS), near)
    assert judge.base.mean == 0
    found = judge.quality(linear(WORSE))
    assert found.metric == "near"
    assert found.mean < 0
    assert judge.compare(found).kept == 0


def test_function_of_a_module_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metric_of_mine.py").write_text(
        "import numpy as np\ndef ones(outputs, reference, labels):\n    return np.ones(len(outputs['logits']))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert quality(linear(WEIGHT), data_of(X), "metric_of_mine:ones").mean == 1


def raising(outputs: Tensors, reference: Tensors, labels: Array | None) -> Array:
    raise KeyError("no such output")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (raising, r"raising raised KeyError: 'no such output'"),
        (lambda *given: "much", "ValueError"),
        (lambda *given: 1.0, r"shape \[\], expected \[40\]"),
        (lambda *given: np.ones(39), r"shape \[39\], expected \[40\]"),
        (lambda *given: np.where(np.arange(40) == 7, np.nan, 1.0), "gave nan for row 7"),
    ],
)
def test_metric_that_fails_is_told_with_its_reason(call: Callable[..., Any], told: str) -> None:
    with pytest.raises(MetricFailed, match=told):
        quality(linear(WEIGHT), data_of(X), call)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bleu", "known are accuracy, agreement, cosine"),
        ("no.module:f", "cannot be imported"),
        ("math:nothing", "cannot be imported"),
        ("math:pi", "float, expected a function"),
    ],
)
def test_unknown_metric_is_a_clear_error(name: str, told: str) -> None:
    with pytest.raises(MetricFailed, match=told):
        quality(linear(WEIGHT), data_of(X), name)


@pytest.mark.parametrize(
    ("name", "labels", "told"),
    [
        ("accuracy", None, "has none"),
        ("accuracy", X[:, 0], r"has labels float64 \[40\]"),
        ("pearson", np.array(["a"] * 40), "numbers as labels"),
        ("pearson", X[:, :3], r"these are \[40, 3\]"),
        ("pearson", X[:, 0], "one number a row, and the model gives 5"),
    ],
)
def test_metric_without_the_labels_it_wants_is_refused(name: str, labels: Array | None, told: str) -> None:
    with pytest.raises(BadData, match=told):
        quality(linear(WEIGHT), data_of(X, labels), name)


def test_overflowing_model_is_told_by_its_row() -> None:
    with pytest.raises(MetricFailed, match="the model may have overflowed"):
        quality(linear(np.full_like(WEIGHT, np.nan)), data_of(X), original=linear(WEIGHT))


# -- intervals ---------------------------------------------------------------------------------------------------------


def of(per_row: Array) -> Quality:
    return Quality("m", float(per_row.mean()), 0.0, 0.0, per_row, per_row)


@given(st.integers(1, 60), st.floats(-2, 2), st.integers(0, 3))
def test_shift_of_every_row_is_told_exactly(rows: int, shift: float, seed: int) -> None:
    """Paired: the rows differ widely, and the difference does not."""
    base = np.random.default_rng(seed).normal(size=rows) * 100
    found = compare(of(base), of(base + shift), seed)
    assert (found.difference, found.low, found.high) == pytest.approx((shift, shift, shift), abs=1e-9)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        base = chance.normal(size=100)
        found = compare(of(base), of(base + chance.normal(0.1, 0.5, size=100)), seed)
        held += found.low <= 0.1 <= found.high
    assert 180 <= held <= 199


def test_same_seed_gives_the_same_interval() -> None:
    one, other = (quality(linear(WEIGHT), data_of(X, LABELS), seed=3) for _ in range(2))
    assert (one.low, one.high) == (other.low, other.high)


def test_other_rows_or_metrics_are_not_compared() -> None:
    with pytest.raises(BadData, match="over 5 rows cannot be compared with m over 6"):
        compare(of(np.ones(5)), of(np.ones(6)))


# -- running -----------------------------------------------------------------------------------------------------------


def session(model: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_outputs_of_padded_texts_are_0_where_they_are_padded() -> None:
    each = [{"ids": np.full(length, length), "mask": np.ones(length, np.int64)} for length in (1, 2, 2, 3, 5)]
    found = run(session(echo()), Rows(each, 2, pads={"ids": 9, "mask": 0}, present="mask"), ["values"])["values"]
    assert found.shape == (5, 5, 2)
    for row, length in zip(found, (1, 2, 2, 3, 5), strict=True):
        assert row[:length].tolist() == [[2 * length + 1, 2 * length + 2]] * length
        assert not row[length:].any()


def test_path_bytes_and_session_are_judged_alike(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear(WEIGHT))
    found = [
        quality(model, data_of(X, LABELS)).mean
        for model in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), linear(WEIGHT), session(linear(WEIGHT)))
    ]
    assert found == [1, 1, 1, 1]


def test_original_is_run_once() -> None:
    class Counting:
        runs = 0

        def session(self, outputs: object = None, threads: int = 2) -> Any:
            Counting.runs += 1
            return session(linear(WEIGHT))

    judge = Judge(Counting(), data_of(X))
    judge.quality(linear(WORSE))
    judge.quality(linear(WORSE))
    assert Counting.runs == 1


def test_model_that_does_not_open_or_take_the_rows_is_a_clear_error() -> None:
    with pytest.raises(RefusedModel, match="onnxruntime cannot run"):
        quality(b"no model", data_of(X))
    with pytest.raises(BadData, match=r"at row 0, \{'x': \[4, 3\]\}"):
        quality(linear(WEIGHT), data_of(X[:, :3]))
