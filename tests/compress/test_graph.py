from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from compress_nets import FLOAT, INT64, conv_net, mlp, model, random, run
from tidemill.compress import proto_stream
from tidemill.compress.graph import Graph
from tidemill.core.errors import DiskFull, RefusedModel

node = helper.make_node
X = np.random.default_rng(3).standard_normal((5, 24)).astype(np.float32)


def saved(made: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(made, path)
    return path


def answers(path: Path | bytes, feeds: dict[str, Any]) -> list[Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def test_layers_come_in_topological_order_with_their_parts() -> None:
    first, second, third = Graph.from_model(mlp()).layers()
    assert (first.name, first.op, first.shape, first.bias, first.add) == (
        "first",
        "MatMul",
        (48, 24),
        "b1",
        "first_add",
    )
    assert (second.op, second.shape, second.bias, second.out_major) == ("Gemm", (48, 48), "b2", True)
    assert (third.op, third.shape, third.bias, third.stage_key) == ("MatMul", (10, 48), None, "h4")


def test_convolutions_are_unfolded_by_group() -> None:
    graph = Graph.from_model(conv_net())
    grouped = next(layer for layer in graph.layers() if layer.name == "grouped")
    assert (grouped.shape, grouped.groups) == ((8, 36), 2)
    assert graph.weight(grouped).shape == (16, 36)
    assert graph.bias(grouped) is None


def test_a_graph_written_and_read_again_computes_the_same(tmp_path: Path) -> None:
    path = saved(mlp(), tmp_path)
    before = answers(path, {"x": X})
    Graph.read(path).write(tmp_path / "again.onnx")
    np.testing.assert_array_equal(answers(tmp_path / "again.onnx", {"x": X})[0], before[0])


def test_external_data_are_read_and_written(tmp_path: Path) -> None:
    graph = Graph.from_model(mlp())
    before = run(graph, {"x": X})
    graph.write(tmp_path / "big.onnx", external=True)
    assert (tmp_path / "big.onnx.data").stat().st_size > (tmp_path / "big.onnx").stat().st_size
    again = Graph.read(tmp_path / "big.onnx")
    np.testing.assert_array_equal(run(again, {"x": X})[0], before[0])
    np.testing.assert_array_equal(answers(tmp_path / "big.onnx", {"x": X})[0], before[0])


def test_a_model_past_two_gigabytes_is_written_beside_itself(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(proto_stream, "SINGLE_FILE_BYTES_MAX", 4_000)
    graph = Graph.from_model(mlp())
    graph.write(tmp_path / "big.onnx")
    assert (tmp_path / "big.onnx.data").exists()
    np.testing.assert_array_equal(run(graph, {"x": X})[0], answers(tmp_path / "big.onnx", {"x": X})[0])


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(mlp(), tmp_path)
    before = path.read_bytes()
    graph = Graph.read(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(proto_stream.os, "fsync", full)
    with pytest.raises(DiskFull, match="no room left"):
        graph.write(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_a_copy_can_change_without_the_first(tmp_path: Path) -> None:
    graph = Graph.from_model(mlp())
    other = graph.copy()
    layer = other.layers()[0]
    other.set_dense(layer, np.zeros((48, 24)), np.ones(48))
    assert graph.weight(layer).any()
    assert not other.weight(layer).any()
    assert other.bias(layer) == pytest.approx(np.ones(48))


@pytest.mark.parametrize("made", [mlp(), conv_net()])
def test_setting_what_was_there_changes_nothing(made: Any) -> None:
    graph = Graph.from_model(made)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 12, 12) if len(graph.layers()) > 3 else (2, 24))}
    feeds = {"x": feeds["x"].astype(np.float32)}
    before = run(graph, feeds)[0]
    for layer in graph.layers():
        graph.set_dense(layer, graph.weight(layer), graph.bias(layer))
    np.testing.assert_array_equal(run(graph, feeds)[0], before)


def test_a_bias_is_added_where_there_was_none() -> None:
    graph = Graph.from_model(mlp())
    before = run(graph, {"x": X})[0]
    graph.set_bias(graph.layers()[2], np.arange(10))
    np.testing.assert_allclose(run(graph, {"x": X})[0], before + np.arange(10), rtol=1e-5)
    assert graph.layers()[2].bias is not None


def test_a_bias_that_two_layers_read_is_changed_for_one() -> None:
    made = model(
        [
            node("Gemm", ["x", "w", "b"], ["p"], name="one"),
            node("Gemm", ["x", "v", "b"], ["q"], name="two"),
        ],
        {"x": (FLOAT, ["n", 24])},
        ["p", "q"],
        {"w": random(24, 6), "v": random(24, 6, seed=1), "b": random(6)},
    )
    graph = Graph.from_model(made)
    one, two = run(graph, {"x": X})
    graph.set_bias(graph.layers()[0], graph.bias(graph.layers()[0]) + 1)  # type: ignore[operator]
    after = run(graph, {"x": X})
    np.testing.assert_allclose(after[0], one + 1, rtol=1e-5)
    np.testing.assert_array_equal(after[1], two)


def test_gemm_scales_and_transposed_constants_are_folded() -> None:
    made = model(
        [
            node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            node("Gemm", ["x", "wt", "c"], ["h"], name="gemm", alpha=0.5, beta=2.0),
            node("Identity", ["v"], ["v2"]),
            node("MatMul", ["h", "v2"], ["y"], name="mul"),
        ],
        {"x": (FLOAT, ["n", 24])},
        ["y"],
        {"w": random(24, 24), "c": random(24, seed=2), "v": random(24, 24, seed=1)},
    )
    plain = answers(made.SerializeToString(), {"x": X})[0]
    graph = Graph.from_model(made)
    assert [node.op_type for node in graph.nodes] == ["Gemm", "MatMul"]
    assert [layer.shape for layer in graph.layers()] == [(24, 24), (24, 24)]
    np.testing.assert_allclose(run(graph, {"x": X})[0], plain, rtol=1e-5, atol=1e-6)


def test_weights_of_constant_nodes_are_layers() -> None:
    made = model(
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(random(24, 24))),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {"x": (FLOAT, ["n", 24])},
        ["y"],
        {},
    )
    graph = Graph.from_model(made)
    assert [layer.weight for layer in graph.layers()] == ["w"]
    assert graph.layers()[0].name


def test_tied_embedding_and_head_are_one_group() -> None:
    made = model(
        [
            node("Gather", ["table", "ids"], ["e"], name="embed"),
            node("Transpose", ["table"], ["tt"], perm=[1, 0]),
            node("MatMul", ["e", "tt"], ["y"], name="head"),
        ],
        {"ids": (INT64, ["n", "t"])},
        ["y"],
        {"table": random(40, 16)},
    )
    graph = Graph.from_model(made)
    embed, head = graph.layers()
    assert (embed.shape, embed.shared, head.shape, head.shared, head.out_major) == (
        (40, 16),
        ("head",),
        (40, 16),
        ("embed",),
        True,
    )
    ids = {"ids": np.array([[1, 2, 3]])}
    graph.set_dense(head, graph.weight(head) * 2)
    twice = run(graph, ids)[0]
    np.testing.assert_allclose(twice, answers(made.SerializeToString(), ids)[0] * 4, rtol=1e-5)


def test_a_constant_on_the_left_is_a_layer() -> None:
    made = model([node("MatMul", ["w", "x"], ["y"])], {"x": (FLOAT, ["n", 24, 3])}, ["y"], {"w": random(6, 24)})
    (layer,) = Graph.from_model(made).layers()
    assert (layer.operand, layer.shape, layer.input) == (0, (6, 24), "x")


def test_what_is_no_layer_is_listed_with_a_reason() -> None:
    half = random(24, 24).astype(np.float16)
    made = model(
        [
            node("MatMul", ["x", "three"], ["a"], name="batched"),
            node("ConvTranspose", ["a", "up"], ["b"], name="up"),
            node("Cast", ["b"], ["c"], to=10),
            node("MatMul", ["c", "half"], ["d"], name="half"),
            node("Cast", ["d"], ["e"], to=1),
            node("DequantizeLinear", ["codes", "scale"], ["w"], name="codes"),
            node("MatMul", ["e", "w"], ["y"], name="quantised"),
        ],
        {"x": (FLOAT, ["n", 24, 24])},
        ["y"],
        {
            "three": random(1, 24, 24),
            "up": random(24, 24, 1),
            "half": half,
            "codes": np.ones((24, 24), np.int8),
            "scale": np.array(0.1, np.float32),
        },
    )
    graph = Graph.from_model(made)
    assert graph.layers() == []
    reasons = {name: reason for name, _, reason in graph.left_alone()}
    assert "3 dimensions" in reasons["batched"]
    assert "ConvTranspose" in reasons["up"]
    assert "float16" in reasons["half"]
    assert reasons["quantised"] == reasons["codes"] == "already quantised"


def test_layers_within_a_branch_are_left_alone() -> None:
    def branch(name: str, factor: float) -> Any:
        inner = node("MatMul", ["x", "w"], [name])
        return helper.make_graph([inner], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    made = model(
        [node("If", ["which"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", 2), name="branch")],
        {"x": (FLOAT, ["n", 24]), "which": (9, [])},
        ["y"],
        {"w": random(24, 24)},
    )
    graph = Graph.from_model(made)
    assert graph.layers() == []
    assert [(each.node, each.op) for each in graph.left_alone()] == [("MatMul in branch", "MatMul")] * 2
    assert "inside 'branch' (If)" in graph.left_alone()[0].reason
    assert "w" in graph.arrays
    feeds = {"x": X, "which": np.array(True)}
    np.testing.assert_array_equal(run(graph, feeds)[0], answers(made.SerializeToString(), feeds)[0])


def test_nan_weights_are_refused_by_name(tmp_path: Path) -> None:
    made = mlp()
    bad = numpy_helper.to_array(made.graph.initializer[2]).copy()
    bad[3, 4] = np.nan
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(bad, "w2"))
    with pytest.raises(RefusedModel, match=r"'w2' of layer 'second' has 1 of 2304 values that are NaN"):
        Graph.read(saved(made, tmp_path))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(RefusedModel):
        Graph.read(tmp_path / "model.onnx")


def test_a_session_holds_only_the_part_that_is_asked_for() -> None:
    graph = Graph.from_model(mlp())
    session = graph.session(["h2"])
    hidden = session.run(None, {"x": X})[0]
    assert hidden.shape == (5, 48)
    rest = graph.session(None, given={"h2": hidden.dtype})
    assert [each.name for each in rest.get_inputs()] == ["h2"]
    np.testing.assert_allclose(rest.run(None, {"h2": hidden})[0], run(graph, {"x": X})[0], rtol=1e-6)
