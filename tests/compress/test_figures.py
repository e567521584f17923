"""What models are called with to be timed, and what is said of two engines that disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import small_nets
from tidemill.compress import figures
from tidemill.compress.data import Data, Rows
from tidemill.compress.examples import examples
from tidemill.compress.measure import Latency
from tidemill.core.tensor import Signature, TensorSpec

FREE = Signature((TensorSpec("x", "FP32", (-1, 3)),), ())


def arrays(count: int, batch: int = 4) -> Data:
    rows = Rows([{"x": np.full(3, at, np.float32)} for at in range(count)], batch)
    return Data(rows, rows, "made", "arrays")


def texts(lengths: list[int]) -> Data:
    found = [{"ids": np.arange(length), "mask": np.ones(length, np.int64)} for length in lengths]
    rows = Rows(found, 4, {"ids": 0, "mask": 0}, present="mask")
    return Data(rows, rows, "made", "text")


def test_rows_are_repeated_until_there_are_enough() -> None:
    feeds = figures.timed_feeds(arrays(3), FREE, [(1, 1), (8, 1)])
    assert {name: each["x"].shape for name, each in feeds.items()} == {"1 row": (1, 3), "8 rows": (8, 3)}
    assert feeds["8 rows"]["x"][:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_texts_are_cut_and_repeated_to_the_length_asked_for() -> None:
    signature = Signature((TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "INT64", (-1, -1))), ())
    feeds = figures.timed_feeds(texts([5, 9]), signature, [])
    assert list(feeds) == ["1 × 16", "8 × 128"]
    assert feeds["8 × 128"]["ids"].shape == (8, 128)
    assert feeds["8 × 128"]["mask"].min() == 1


def test_a_model_of_fixed_size_is_called_as_it_can_be() -> None:
    fixed = Signature((TensorSpec("x", "FP32", (4, 3)),), ())
    assert {name: each["x"].shape for name, each in figures.timed_feeds(arrays(8), fixed, [(1, 1)]).items()} == {
        "4 rows": (4, 3)
    }
    assert list(figures.timed_feeds(arrays(8, batch=0), FREE, [(1, 1)])) == ["one call"]
    long = Signature((TensorSpec("ids", "INT64", (-1, 32)), TensorSpec("mask", "INT64", (-1, 32))), ())
    assert figures.timed_feeds(texts([5]), long, [(2, 16)])["2 × 32"]["ids"].shape == (2, 32)


def test_what_could_not_be_timed_is_said_and_left_out() -> None:
    notes: list[str] = []
    whole = {"wall_ms": 2.0, "cpu_ms": 2.0, "rounds": 3}
    found = [
        Latency("before", "onnxruntime", "1 row", wall_ratio=(1.0, 1.0, 1.0), **whole),
        Latency("after", "onnxruntime", "1 row", wall_ratio=(0.5, 0.4, 0.6), **whole),
        Latency("before", "openvino", "1 row", wall_ratio=(2.0, 1.9, 2.1), **whole),
        Latency("after", "openvino", "1 row", reason="no such operator"),
    ]
    (speed,) = figures._speeds(found, notes)
    assert (speed.engine, speed.ratio.mean, speed.ratio.low) == ("onnxruntime", 0.5, 0.4)
    assert notes == ["the time of the model after in openvino could not be measured: no such operator"]


@pytest.mark.slow
def test_both_models_are_measured_in_every_engine(tmp_path: Path) -> None:
    path = small_nets.save_net(tmp_path / "models")
    rows = Rows([{"x": np.ones(small_nets.FEATURES, np.float32)} for _ in range(4)], 4)
    signature = Signature((TensorSpec("x", "FP32", (-1, small_nets.FEATURES)),), ())
    taken = figures.take(path, path, Data(rows, rows, "made", "arrays"), signature, [(1, 1)], 1)
    assert {each.engine for each in taken.speeds} == {each.engine for each in taken.footprints}
    assert all(each.shape == "1 row" and each.before_ms > 0 for each in taken.speeds)
    assert all(each.load_s_after is not None for each in taken.footprints)
    assert all("disagree" not in note for note in taken.notes)


def test_the_rows_that_lost_most_come_first_and_are_worded() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 9
    per_row = np.array([1.0, 0.0, 1.0, 1.0])
    told = examples(
        ["a", "b", "c", "d"], {"y": logits}, {"y": logits[::-1]}, per_row, np.array([0, 1, 2, 0]), ["x", "y", "z"]
    )
    assert told[0].given == "b (labelled y)"
    assert told[0].before.startswith("y (")
    assert told[0].after.startswith("z (")
    vectors = np.eye(4, 20, dtype=np.float32) + 0.1
    (first, *_) = examples([], {"e": vectors}, {"e": vectors}, np.zeros(4), None, [])
    assert (first.given, first.before.startswith("nearest: row")) == ("row 0", True)
    (plain, *_) = examples([], {"e": vectors[:, :2]}, {"e": vectors[:, :2]}, np.zeros(4), None, [])
    assert plain.before == "1.1, 0.1"
