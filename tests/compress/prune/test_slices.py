from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compress.prune.benches import bench_of
from compress_nets import FLOAT, Data, Rows, mlp, model, random
from tidemill.compress.prune.slices import BROKEN, Slice
from tidemill.core.errors import BadData, InvalidRecipe


def test_each_number_of_a_short_answer_counts_for_itself_and_nothing_is_lost_at_first(tmp_path: Path) -> None:
    with bench_of(mlp(), (24,), tmp_path) as bench:
        seen = Slice(bench)
        assert seen.names == tuple(f"y[{at}]" for at in range(10))
        assert not seen.lost(bench.graph).any()


def test_what_is_lost_is_the_error_over_the_variance(tmp_path: Path) -> None:
    with bench_of(mlp(), (24,), tmp_path) as bench:
        silent = bench.graph.copy()
        third = next(layer for layer in silent.layers() if layer.name == "third")
        silent.set_dense(third, np.zeros((10, 48), np.float32))
        assert (Slice(bench).lost(silent) >= 1).all()
        silent.set_dense(third, np.full((10, 48), 1e38, np.float32))
        assert (Slice(bench).lost(silent) == BROKEN).all()


def test_the_held_out_rows_are_not_looked_at(tmp_path: Path) -> None:
    with bench_of(mlp(), (24,), tmp_path) as bench:
        Slice(bench).lost(bench.graph)
        assert bench.data.held.reads == 0  # type: ignore[attr-defined]


def test_no_rows_and_answers_without_floats_are_refused(tmp_path: Path) -> None:
    with bench_of(mlp(), (24,), tmp_path) as bench:
        bench.data = Data(Rows({"x": np.zeros((0, 24), np.float32)}), Rows({"x": np.zeros((0, 24), np.float32)}))
        with pytest.raises(BadData, match="no rows"):
            Slice(bench)
    node = helper.make_node
    best = model(
        [node("MatMul", ["x", "w"], ["h"], name="only"), node("ArgMax", ["h"], ["y"], axis=1)],
        {"x": (FLOAT, ["batch", 24])}, [], {"w": random(24, 30)},
    )  # fmt: skip
    best.graph.output.append(helper.make_tensor_value_info("y", 7, None))
    with bench_of(best, (24,), tmp_path) as bench, pytest.raises(InvalidRecipe, match="floats"):
        Slice(bench)


def test_the_rows_looked_at_are_kept_out_of_what_is_fitted(tmp_path: Path) -> None:
    with bench_of(mlp(), (24,), tmp_path, rows=160) as bench:
        seen = Slice(bench, 16)
        rest = np.concatenate([feeds["x"] for feeds in seen.rest.fit])
        assert len(rest) == 160 - 16
        assert np.isin(rest[:, 0], bench.data.fit.feeds["x"][:, 0]).all()  # type: ignore[attr-defined]
        assert Slice(bench, 100).rest is bench.data
