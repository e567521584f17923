"""What the capture adds up is what numpy says of the rows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compress_nets import FLOAT, INT64, Data, Rows, conv_net, data, mlp, model, random
from tidemill.compress import walk
from tidemill.compress.capture import Capture, stages
from tidemill.compress.graph import Graph
from tidemill.compress.moments import BINS, Captured, Histogram
from tidemill.core.errors import BadData
from tidemill.core.tensor import Array

node = helper.make_node


def captured(
    graph: Graph, rows: Data, work: Path, current: Graph | None = None, **more: Any
) -> dict[str, list[Captured]]:
    todo = stages(graph.layers())
    found: dict[str, list[Captured]] = {}
    with Capture(graph, current, todo, rows, work, **more) as capture:
        for stage in todo:
            found |= capture.take(stage)
    assert not list(work.glob("spool-*"))
    return found


def test_moments_are_those_of_the_rows(tmp_path: Path) -> None:
    graph = Graph.from_model(mlp())
    rows = data([24], rows=60, held=20)
    found = captured(graph, rows, tmp_path, held_rows_max=20)
    session = graph.session(["x", "h2", "h4"])
    for name, at in (("first", 0), ("second", 1), ("third", 2)):
        x = session.run(None, rows.fit.feeds)[at].astype(np.float64)
        held = session.run(None, rows.held.feeds)[at].astype(np.float64)
        (each,) = found[name]
        assert (each.fit.count, each.held.count) == (60, 20)
        np.testing.assert_allclose(each.fit.second, x.T @ x / 60, atol=1e-6)
        np.testing.assert_allclose(each.held.second, held.T @ held / 20, atol=1e-6)
        np.testing.assert_allclose(each.fit.mean, x.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(each.fit.low, x.min(axis=0))
        np.testing.assert_allclose(each.fit.high, x.max(axis=0))
        assert each.fit.histogram.sum() == x.size
        assert each.cross is None


def test_the_current_model_is_seen_beside_the_original(tmp_path: Path) -> None:
    graph = Graph.from_model(mlp())
    current = graph.copy()
    rows = data([24])
    todo = stages(graph.layers())
    with Capture(graph, current, todo, rows, tmp_path) as capture:
        capture.take(todo[0])
        first = graph.layers()[0]
        current.set_dense(first, np.round(graph.weight(first) * 4) / 4)
        (each,) = capture.take(todo[1])["second"]
    x = graph.session(["h2"]).run(None, rows.fit.feeds)[0]
    now = current.session(["h2"]).run(None, rows.fit.feeds)[0]
    assert each.cross is not None
    assert each.mean is not None
    np.testing.assert_allclose(each.fit.second, now.T @ now / 64, atol=1e-5)
    np.testing.assert_allclose(each.cross, x.T @ now / 64, atol=1e-5)
    np.testing.assert_allclose(each.mean, x.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER", "strides": [2, 1]}])
def test_patches_times_weights_are_the_convolution(tmp_path: Path, changes: dict[str, Any]) -> None:
    made = conv_net()
    stem = made.graph.node[0]
    if changes:
        del stem.attribute[:]
        stem.attribute.extend(helper.make_attribute(key, value) for key, value in changes.items())
        del made.graph.node[2:]
        made.graph.output[0].name = "r0"
    graph = Graph.from_model(made)
    rows = data([3, 12, 12], rows=6, held=2)
    found = captured(graph, rows, tmp_path)
    for layer in graph.layers():
        weight, bias = graph.weight(layer).astype(np.float64), graph.bias(layer)
        (y,) = graph.session([layer.output]).run(None, rows.fit.feeds)
        y = y.reshape(len(y), layer.groups, layer.shape[0], -1).transpose(1, 0, 3, 2)
        for group, each in enumerate(found[layer.name]):
            part = slice(group * layer.shape[0], (group + 1) * layer.shape[0])
            rows_of = y[group].reshape(-1, layer.shape[0]) - (0 if bias is None else bias[part])
            power = np.einsum("oi,ij,oj->o", weight[part], each.fit.second, weight[part])
            np.testing.assert_allclose(power, (rows_of.astype(np.float64) ** 2).mean(axis=0), rtol=1e-4)


def test_places_of_a_convolution_are_thinned_out(tmp_path: Path) -> None:
    graph = Graph.from_model(conv_net())
    found = captured(graph, data([3, 12, 12]), tmp_path, places_max=1000)
    assert 700 < found["stem"][0].fit.count <= 1100


def test_a_constant_on_the_left_sees_columns(tmp_path: Path) -> None:
    graph = Graph.from_model(
        model([node("MatMul", ["w", "x"], ["y"])], {"x": (FLOAT, ["n", 6, 5])}, ["y"], {"w": random(30, 6)})
    )
    rows = data([6, 5], rows=10)
    ((each,),) = captured(graph, rows, tmp_path).values()
    x = rows.fit.feeds["x"].transpose(0, 2, 1).reshape(-1, 6)
    np.testing.assert_allclose(each.fit.second, x.T @ x / 50, atol=1e-6)


def attending(flatten: bool) -> Any:
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Cast", ["attention_mask"], ["m"], to=1),
        node("Unsqueeze", ["m", "last"], ["m3"]),
        node("Div", ["e", "m3"], ["d"]),  # what is masked out is infinite, and must not count
        node("Reshape", ["d", "flat"], ["d2"]),
        node("MatMul", ["d2" if flatten else "d", "w"], ["y"], name="layer"),
    ]
    return model(
        nodes,
        {"ids": (INT64, ["n", "t"]), "attention_mask": (INT64, ["n", "t"])},
        ["y"],
        {"table": random(50, 16), "w": random(16, 20), "last": np.array([2]), "flat": np.array([-1, 16])},
    )


@pytest.mark.parametrize("flatten", [False, True])
def test_masked_tokens_do_not_count(tmp_path: Path, flatten: bool) -> None:
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 50, (12, 7)), (rng.random((12, 7)) < 0.6).astype(np.int64)
    rows = Rows({"ids": ids, "attention_mask": mask})
    graph = Graph.from_model(attending(flatten))
    (each,) = captured(graph, Data(rows, rows), tmp_path)["layer"]
    x = graph.array("table")[ids[mask == 1]]
    assert each.fit.count == mask.sum()
    np.testing.assert_allclose(each.fit.second, x.T @ x / mask.sum(), atol=1e-6)


def test_rows_that_are_not_finite_are_named(tmp_path: Path) -> None:
    rows = data([24], rows=20)
    rows.fit.feeds["x"][13, 4] = np.nan
    with pytest.raises(BadData, match=r"row 13 of the data has NaN or infinity in 'x'"):
        captured(Graph.from_model(mlp()), rows, tmp_path)
    assert not list(tmp_path.iterdir())


def test_rows_that_make_the_model_overflow_are_named(tmp_path: Path) -> None:
    rows = data([24], rows=20)
    rows.fit.feeds["x"][11] = 3e38
    with pytest.raises(BadData, match=r"row 11 makes the model give NaN, infinity or more than 1e15 in 'x'"):
        captured(Graph.from_model(mlp()), rows, tmp_path)
    assert not list(tmp_path.glob("spool*"))


def test_rows_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="the data have no 'x'"):
        captured(Graph.from_model(mlp()), data([24], name="other"), tmp_path)
    with pytest.raises(BadData, match=r"give 'x' as \[8, 23\], and the model takes \[any, 24\]"):
        captured(Graph.from_model(mlp()), data([23]), tmp_path)
    with pytest.raises(BadData, match="no rows"):
        captured(Graph.from_model(mlp()), data([24], rows=0), tmp_path)


def test_without_room_for_what_waits_the_answers_are_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    graph = Graph.from_model(conv_net())
    rows = data([3, 12, 12], rows=16)
    usual = captured(graph, rows, tmp_path, graph.copy())
    monkeypatch.setattr(walk, "SPOOL_BYTES_MAX", 10)
    tight = captured(graph, rows, tmp_path, graph.copy())
    for name, groups in usual.items():
        for one, other in zip(groups, tight[name], strict=True):
            np.testing.assert_allclose(one.fit.second, other.fit.second, rtol=1e-5, atol=1e-7)


def test_layers_on_the_same_weights_are_seen_together(tmp_path: Path) -> None:
    made = model(
        [
            node("MatMul", ["x", "w"], ["h"], name="one"),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "w"], ["y"], name="two"),
        ],
        {"x": (FLOAT, ["n", 24])},
        ["y"],
        {"w": random(24, 24)},
    )
    graph = Graph.from_model(made)
    rows = data([24])
    found = captured(graph, rows, tmp_path)
    assert list(found) == ["one"]
    x, r = graph.session(["x", "r"]).run(None, rows.fit.feeds)
    both = np.concatenate([x, r])
    np.testing.assert_allclose(found["one"][0].fit.second, both.T @ both / 128, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_histogram_counts_everything_between_its_edges(batches: list[list[float]]) -> None:
    histogram = Histogram()
    for batch in batches:
        values: Array = np.array(batch, np.float32)
        histogram.add(values, float(values.min()), float(values.max()))
    flat = np.array([value for batch in batches for value in batch])
    assert histogram.counts.sum() == flat.size
    edges = histogram.edges
    assert len(edges) == BINS + 1
    assert edges[0] <= flat.min() <= flat.max() <= edges[-1] * (1 + 1e-6) + 1e-30
    below = np.searchsorted(np.sort(flat), edges[1024], side="left")
    # One bin's width of doubt for values that rounding puts over an edge.
    near = (np.abs(flat - edges[1024]) <= edges[1] - edges[0]).sum()
    assert abs(int(histogram.counts[:1024].sum()) - below) <= near
