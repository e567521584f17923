from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compress_nets
from compress.quantise import encoders
from tidemill.compress.graph import Graph
from tidemill.compress.quantise import rowwise
from tidemill.compress.quantise.int8 import METHOD
from tidemill.core.errors import BadData, InvalidRecipe
from tidemill.core.tensor import Array

FIT, HELD = encoders.batches(12, 1), encoders.batches(3, 2)


def ops(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def run(model, options, tmp_path: Path, fit=FIT, held=HELD):
    bench = encoders.bench(model, fit, held, tmp_path)
    (outcome,) = METHOD.run(bench, METHOD.settle(options))
    return bench, outcome


def quality(bench, outcome) -> float:
    pairs = [(encoders.answers(bench.graph, batch), encoders.answers(outcome.graph, batch)) for batch in HELD]
    return float(np.mean([encoders.cosine(a, b) for a, b in pairs]))


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 0.999),
        ({"dynamic": True}, 0.999),
        ({"attention": False}, 0.999),
        ({"smooth": False}, 0.9),
        ({"per_channel": False, "range": "minmax"}, 0.99),
        ({"reduce_range": True, "range": "percentile"}, 0.998),
        ({"range": "entropy", "compensate": False, "embeddings": False}, 0.99),
    ],
)
def test_an_encoder_keeps_its_answers(options, least, tmp_path):
    bench, outcome = run(encoders.encoder(), options, tmp_path)
    assert quality(bench, outcome) > least
    assert {"q", "k", "v", "o", "f1", "f2"} <= set(outcome.layers)
    assert outcome.graph.size_bytes < 0.55 * bench.graph.size_bytes
    assert all(result.error_fit < 0.05 for result in outcome.layers.values())


def test_smoothing_pays_where_a_channel_sticks_out(tmp_path):
    with_it, without = (quality(*run(encoders.encoder(), {"smooth": smooth}, tmp_path)) for smooth in (True, False))
    assert 1 - with_it < 0.5 * (1 - without)


def test_static_int8_reaches_the_integer_kernels(tmp_path):
    """Counts what stock onnxruntime makes of the pattern: a kernel that is not found leaves a float Gemm behind."""
    _, outcome = run(encoders.encoder(), {}, tmp_path)
    path, optimised = tmp_path / "m.onnx", tmp_path / "optimised.onnx"
    outcome.graph.write(path)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimised)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    after = [node.op_type for node in onnx.load(optimised).graph.node]
    assert after.count("QGemm") == 6
    assert "Gemm" not in after
    assert "MatMul" not in after  # both products of attention


def test_static_int8_reaches_openvinos_integer_kernels(tmp_path):
    """OpenVINO multiplies queries with keys in int8 only where both come as int8, and rounds within what it computes
    anyway only where no range for each channel keeps it from that."""
    model, draw = encoders.encoder(), np.random.default_rng(3)
    for each in model.graph.initializer:
        if each.name.startswith("norm") and each.name.endswith(".b"):
            each.CopyFrom(
                onnx.numpy_helper.from_array(draw.standard_normal(encoders.WIDTH).astype(np.float32), each.name)
            )
    _, outcome = run(model, {}, tmp_path)
    path = tmp_path / "m.onnx"
    outcome.graph.write(path)
    import openvino

    made = openvino.Core().compile_model(path, "CPU").get_runtime_model().get_ordered_ops()
    told = [{key: value.astype(str) for key, value in node.get_rt_info().items()} for node in made]
    turned = {each["originalLayersNames"]: each["outputPrecisions"] for each in told if each["layerType"] == "Reshape"}
    assert [turned[f"{name}.h_moved"] for name in "qkv"] == ["i8"] * 3
    assert not [each["originalLayersNames"] for each in told if each["layerType"] in {"FakeQuantize", "Quantize"}]


def test_dynamic_attention_is_one_node_with_the_same_answers(tmp_path):
    bench, fused = run(encoders.encoder(), {"dynamic": True}, tmp_path)
    _, plain = run(encoders.encoder(), {"dynamic": True, "attention": False}, tmp_path)
    assert ops(fused.graph).count("QAttention") == 1
    assert "Softmax" not in ops(fused.graph)
    for batch in HELD:
        np.testing.assert_allclose(
            encoders.answers(fused.graph, batch), encoders.answers(plain.graph, batch), rtol=0, atol=2e-3
        )
    assert quality(bench, fused) > 0.999


def test_a_mask_of_unknown_meaning_keeps_attention_apart(tmp_path):
    model = encoders.encoder()
    hidden = next(each for each in model.graph.initializer if each.name == "hidden")
    hidden.CopyFrom(onnx.numpy_helper.from_array(np.array(-3, np.float32), "hidden"))
    bench, outcome = run(model, {"dynamic": True}, tmp_path)
    assert "QAttention" not in ops(outcome.graph)
    assert quality(bench, outcome) > 0.999


def test_convolutions_are_integer_from_input_to_output(tmp_path):
    model = compress_nets.conv_net()
    given = model.graph.input[0]
    shape = [dim.dim_value or 4 for dim in given.type.tensor_type.shape.dim]
    draw = np.random.default_rng(0)
    rows = [{given.name: draw.standard_normal(shape).astype(np.float32)} for _ in range(12)]
    bench, outcome = run(model, {}, tmp_path, rows[:8], rows[8:])
    assert any(layer.op == "Conv" and layer.name in outcome.layers for layer in bench.graph.layers())
    for batch in rows[8:]:
        before, after = encoders.answers(bench.graph, batch), encoders.answers(outcome.graph, batch)
        assert np.abs(before - after).max() < 0.1 * np.abs(before).max()


def test_dynamic_leaves_convolutions_and_says_so(tmp_path):
    model = compress_nets.conv_net()
    given = model.graph.input[0]
    shape = [dim.dim_value or 4 for dim in given.type.tensor_type.shape.dim]
    rows = [{given.name: np.random.default_rng(at).standard_normal(shape).astype(np.float32)} for at in range(4)]
    try:
        _, outcome = run(model, {"dynamic": True}, tmp_path, rows, rows)
    except InvalidRecipe as error:
        words = str(error)
    else:
        words = " ".join(f"({each.op}) was left alone: {each.reason}" for each in outcome.left)
    assert "(Conv) was left alone: a convolution is slower" in words


def test_only_the_layers_of_the_step_change(tmp_path):
    bench = encoders.bench(encoders.encoder(), FIT, HELD, tmp_path)
    bench.match = lambda layer: layer.name in {"f1", "f2"}
    (outcome,) = METHOD.run(bench, METHOD.settle({}))
    assert set(outcome.layers) == {"f1", "f2"}
    assert {layer.name for layer in outcome.graph.layers()} >= {"q", "k", "v", "o"}


def test_a_run_is_repeatable(tmp_path):
    first, second = (run(encoders.encoder(), {}, tmp_path)[1].graph for _ in range(2))
    assert first.to_model().SerializeToString(deterministic=True) == second.to_model().SerializeToString(
        deterministic=True
    )


class Streamed:
    """So many batches of one length, made as they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for seed in range(self.count):
            ids = np.random.default_rng(seed).integers(0, encoders.WORDS, (8, 64))
            yield {"ids": ids, "mask": np.ones_like(ids)}


@pytest.mark.parametrize("options", [{}, {"dynamic": True}])
def test_memory_does_not_grow_with_the_rows(options, tmp_path):
    """Counts what Python and numpy hold at most: four times the rows may cost what their bookkeeping takes."""
    peaks = []
    run(encoders.encoder(), options, tmp_path, Streamed(2), HELD)  # what is made once and kept
    for count in (10, 40):
        tracemalloc.start()
        run(encoders.encoder(), options, tmp_path, Streamed(count), HELD)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_batch = 8 * 64 * 4 * encoders.WIDTH * 4
    assert peaks[1] < peaks[0] + one_batch


def test_progress_is_told_layer_by_layer(tmp_path):
    bench = encoders.bench(encoders.encoder(), FIT, HELD, tmp_path)
    said = []
    bench.settings = replace(bench.settings, progress=said.append)
    METHOD.run(bench, METHOD.settle({}))
    assert [each.done for each in said] == sorted(each.done for each in said)
    assert (said[0].done, said[-1].done, said[-1].total) == (0, 6, 6)


def test_the_bench_keeps_its_graph(tmp_path):
    model = encoders.encoder()
    bench = encoders.bench(model, FIT, HELD, tmp_path)
    before = bench.graph.to_model().SerializeToString(deterministic=True)
    METHOD.run(bench, METHOD.settle({}))
    assert bench.graph.to_model().SerializeToString(deterministic=True) == before


def test_an_old_opset_is_raised(tmp_path):
    node = helper.make_node
    weight = compress_nets.random(16, 32)
    model = compress_nets.model(
        [node("MatMul", ["x", "w"], ["y"], name="only")],
        {"x": (TensorProto.FLOAT, ["batch", 16])},
        ["y"],
        {"w": weight},
        opset=11,
    )
    rows = [{"x": np.random.default_rng(at).standard_normal((8, 16)).astype(np.float32)} for at in range(4)]
    bench, outcome = run(model, {}, tmp_path, rows, rows)
    assert outcome.graph.opset() >= 13
    before, after = encoders.answers(bench.graph, rows[0]), encoders.answers(outcome.graph, rows[0])
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_a_model_without_layers_is_refused_with_reasons(tmp_path):
    node = helper.make_node
    branches = [
        helper.make_graph(
            [node("MatMul", ["x", "w"], ["z"]), *([node("Neg", ["z"], ["b"])] if at else [node("Abs", ["z"], ["b"])])],
            f"branch{at}",
            [],
            [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
        )
        for at in (0, 1)
    ]
    model = compress_nets.model(
        [node("If", ["when"], ["y"], name="fork", then_branch=branches[0], else_branch=branches[1])],
        {"x": (TensorProto.FLOAT, [4, 16]), "when": (TensorProto.BOOL, [])},
        ["y"],
        {"w": compress_nets.random(16, 32)},
    )
    rows = [{"x": np.zeros((4, 16), np.float32), "when": np.array(True)}]
    with pytest.raises(InvalidRecipe, match=r"\(MatMul\) was left alone: it lies inside 'fork' \(If\)"):
        run(model, {}, tmp_path, rows, rows)


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(BadData, match="no row"):
        run(encoders.encoder(), {}, tmp_path, [], [])


def test_rows_that_make_nan_are_refused(tmp_path):
    rows = [{"x": np.full((4, 24), np.nan, np.float32)}]
    with pytest.raises(BadData, match="not finite"):
        run(compress_nets.mlp(), {}, tmp_path, rows, rows)


@pytest.mark.parametrize("options", [{}, {"dynamic": True}], ids=["static", "dynamic"])
def test_a_run_that_was_broken_off_goes_on_and_ends_as_an_unbroken_one(options, tmp_path, monkeypatch):
    _, whole = run(encoders.encoder(), options, tmp_path / "whole")
    real, solved = rowwise.solve, []

    def dies(*given, **more):
        if len(solved) == 3:
            raise KeyboardInterrupt
        solved.append(None)
        return real(*given, **more)

    monkeypatch.setattr(rowwise, "solve", dies)
    with pytest.raises(KeyboardInterrupt):
        run(encoders.encoder(), options, tmp_path / "broken")
    again = []

    def counts(*given, **more):
        again.append(None)
        return real(*given, **more)

    monkeypatch.setattr(rowwise, "solve", counts)
    _, resumed = run(encoders.encoder(), options, tmp_path / "broken")
    assert len(again) == len([name for name in whole.layers if not name.startswith("Gather")]) - 3
    assert resumed.graph.to_model().SerializeToString(deterministic=True) == whole.graph.to_model().SerializeToString(
        deterministic=True
    )
    assert dict(resumed.layers).keys() == dict(whole.layers).keys()
    assert [each.error_held for each in resumed.layers.values()] == [each.error_held for each in whole.layers.values()]
