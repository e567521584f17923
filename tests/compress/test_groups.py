"""Units that are taken out leave the model that computes what it would with their readers' weights at zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compress_nets import FLOAT, INT64, mlp, model, random, run
from tidemill.compress.graph import Graph
from tidemill.compress.groups import ChannelGroup

node = helper.make_node


def residual_net() -> Any:
    """A stem with a BatchNormalization; a block that adds to it, with a depthwise convolution and a gate of squeeze and
    excitation; Flatten of more than one place."""
    c, d = 6, 10
    return model(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c0", "scale", "shift", "mean", "var"], ["n0"], name="norm"),
            node("Clip", ["n0", "low", "high"], ["r0"]),
            node("Conv", ["r0", "w1", "b1"], ["c1"], name="inner"),
            node("HardSwish", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2", "b1"], ["c2"], name="depthwise", group=d, pads=[1, 1, 1, 1]),
            node("PRelu", ["c2", "slope"], ["r2"], name="prelu"),
            node("Conv", ["r2", "w3"], ["c3"], name="outer", pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["c3"], ["g0"]),
            node("Conv", ["g0", "w4", "b4"], ["g1"], name="squeeze"),
            node("Relu", ["g1"], ["g2"]),
            node("Conv", ["g2", "w5"], ["g3"], name="excite"),
            node("HardSigmoid", ["g3"], ["g4"]),
            node("Mul", ["c3", "g4"], ["c4"], name="gate"),
            node("Add", ["c4", "r0"], ["sum"], name="residual"),
            node("MaxPool", ["sum"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w6", "b6"], ["y"], name="head", transB=1),
        ],
        {"x": (FLOAT, ["n", 3, 8, 8])},
        ["y"],
        {
            "w0": random(c, 3, 3, 3, seed=1), "b0": random(c, seed=2),
            "scale": random(c, seed=3) + 1, "shift": random(c, seed=4), "mean": random(c, seed=5),
            "var": np.abs(random(c, seed=6)) + 1, "low": np.float32(-1), "high": np.float32(3),
            "w1": random(d, c, 1, 1, seed=7), "b1": random(d, seed=8), "w2": random(d, 1, 3, 3, seed=9),
            "slope": random(d, 1, 1, seed=10), "w3": random(c, d, 3, 3, seed=11),
            "w4": random(4, c, 1, 1, seed=12), "b4": random(4, seed=13), "w5": random(c, 4, 1, 1, seed=14),
            "w6": random(5, c * 16, seed=15), "b6": random(5, seed=16),
        },
    )  # fmt: skip


def attention(dynamic: bool) -> Any:
    """One block as exporters write it; `dynamic` puts shapes together as the model runs."""
    k, heads, width = 16, 4, 3
    inner = heads * width
    split, merge = ("split", "merge") if dynamic else ("four", "three")
    shapes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["batch"]),
        node("Slice", ["shape", "one", "two"], ["tokens"]),
        node("Concat", ["batch", "tokens", "heads", "width"], ["split"], axis=0),
        node("Concat", ["batch", "tokens", "all"], ["merge"], axis=0),
    ]
    nodes = [
        node("MatMul", ["x", "wq"], ["q0"], name="query"),
        node("Add", ["bq", "q0"], ["q1"]),
        node("MatMul", ["x", "wk"], ["k0"], name="key"),
        node("MatMul", ["x", "wv"], ["v0"], name="value"),
        node("Add", ["v0", "bv"], ["v1"]),
        node("Reshape", ["q1", split], ["q2"]),
        node("Reshape", ["k0", split], ["k2"]),
        node("Reshape", ["v1", split], ["v2"]),
        node("Transpose", ["q2"], ["q3"], perm=[0, 2, 1, 3]),
        node("Transpose", ["k2"], ["k3"], perm=[0, 2, 3, 1]),
        node("Transpose", ["v2"], ["v3"], perm=[0, 2, 1, 3]),
        node("Mul", ["q3", "scale"], ["q4"]),
        node("MatMul", ["q4", "k3"], ["s0"]),
        node("Add", ["s0", "position"], ["s1"]),
        node("Softmax", ["s1"], ["p"], axis=-1),
        node("MatMul", ["p", "v3"], ["c0"]),
        node("Transpose", ["c0"], ["c1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["c1", merge], ["c2"]),
        node("MatMul", ["c2", "wo"], ["o"], name="out"),
        node("Add", ["o", "x"], ["y"]),
    ]
    return model(
        (shapes if dynamic else []) + nodes,
        {"x": (FLOAT, ["n", "t", k])},
        ["y"],
        {
            "wq": random(k, inner, seed=1), "wk": random(k, inner, seed=2), "wv": random(k, inner, seed=3),
            "bq": random(inner, seed=4), "bv": random(inner, seed=5), "wo": random(inner, k, seed=6),
            "four": np.array([0, 0, heads, width]), "three": np.array([0, 0, inner]),
            "position": random(1, heads, 1, 1, seed=7) + random(1, 1, 5, 5, seed=8), "scale": np.float32(0.6),
            "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "heads": np.array([heads]),
            "width": np.array([width]), "all": np.array([inner]),
        },
    )  # fmt: skip


def gated() -> Any:
    """An FFN of two halves whose product goes on, with a Gelu written out."""
    return model(
        [
            node("MatMul", ["x", "wa"], ["a"], name="gate"),
            node("Div", ["a", "root"], ["a1"]),
            node("Erf", ["a1"], ["a2"]),
            node("Add", ["a2", "unit"], ["a3"]),
            node("Mul", ["a", "a3"], ["a4"]),
            node("MatMul", ["x", "wb"], ["b"], name="up"),
            node("Add", ["b", "bias"], ["b1"]),
            node("Mul", ["a4", "b1"], ["c"]),
            node("MatMul", ["c", "wc"], ["d"], name="down"),
            node("Add", ["d", "x"], ["y"]),
        ],
        {"x": (FLOAT, ["n", "t", 8])},
        ["y"],
        {
            "wa": random(8, 20, seed=1), "wb": random(8, 20, seed=2), "wc": random(20, 8, seed=3),
            "bias": random(20, seed=4), "root": np.float32(1.4), "unit": np.float32(1),
        },
    )  # fmt: skip


NETS = {
    "residual": (residual_net, (2, 3, 8, 8)),
    "attention": (lambda: attention(False), (2, 5, 16)),
    "attention, shapes as it runs": (lambda: attention(True), (2, 5, 16)),
    "gated": (gated, (2, 5, 8)),
    "mlp": (mlp, (4, 24)),
}


def zeroed(graph: Graph, groups: list[ChannelGroup], gone: dict[str, Any]) -> Graph:
    other = graph.copy()
    for group in groups:
        for member in group.consumers:
            weight = other.weight(member.layer).copy()
            weight[:, member.places[gone[group.name]].ravel()] = 0
            other.set_dense(member.layer, weight)
    return other


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_taking_units_out_is_zeroing_what_reads_them(name: str, seed: int) -> None:
    build, shape = NETS[name]
    graph = Graph.from_model(build())
    groups = graph.channel_groups()
    assert groups
    chance = np.random.default_rng(seed)
    x = {"x": chance.standard_normal(shape).astype(np.float32)}
    smaller, gone = graph.copy(), {}
    for group in groups:
        left = chance.permutation(group.size)[: chance.integers(1, group.size + 1)]
        gone[group.name] = np.setdiff1d(np.arange(group.size), left)
        smaller.remove(group, left)
    wanted = run(zeroed(graph, groups, gone), x)[0]
    np.testing.assert_allclose(run(smaller, x)[0], wanted, rtol=1e-4, atol=1e-5)
    if any(len(each) for each in gone.values()):
        assert smaller.size_bytes < graph.size_bytes


def test_a_residual_net_has_its_coupled_channels() -> None:
    graph = Graph.from_model(residual_net())
    stem, inner, squeeze = graph.channel_groups()
    assert [m.layer.name for m in stem.producers] == ["stem", "outer", "excite"]
    assert [m.layer.name for m in stem.consumers] == ["inner", "squeeze", "head"]
    assert stem.kind == "channels"
    assert (inner.size, inner.depthwise, {other.node for other in inner.others}) == (
        10,
        ("depthwise",),
        {"depthwise", "prelu"},
    )
    assert squeeze.size == 4
    head = stem.consumers[-1]
    assert head.places.shape == (6, 16)


@pytest.mark.parametrize("dynamic", [False, True])
def test_heads_go_whole(dynamic: bool) -> None:
    graph = Graph.from_model(attention(dynamic))
    (group,) = graph.channel_groups()
    assert (group.kind, group.size, group.unit_width) == ("heads", 4, 3)
    graph.remove(group, np.array([2, 0]))
    assert [layer.shape for layer in graph.layers()] == [(6, 16), (6, 16), (6, 16), (16, 6)]
    (group,) = graph.channel_groups()
    assert group.size == 2


def test_both_halves_of_a_gated_ffn_go_together() -> None:
    (group,) = Graph.from_model(gated()).channel_groups()
    assert (group.kind, group.size) == ("ffn", 20)
    assert [member.layer.name for member in group.producers] == ["gate", "up"]


def test_consumers_take_the_weights_they_are_given() -> None:
    graph = Graph.from_model(mlp())
    first = graph.channel_groups()[0]
    keep = np.arange(10)
    graph.remove(first, keep, {"second": np.ones((48, 10))})
    assert graph.layers()[0].shape == (10, 24)
    np.testing.assert_array_equal(graph.weight(graph.layers()[1]), np.ones((48, 10)))
    with pytest.raises(ValueError, match="at least one"):
        graph.remove(graph.channel_groups()[0], np.array([], int))


def test_a_bias_of_two_layers_is_cut_for_each() -> None:
    graph = Graph.from_model(residual_net())
    inner = graph.channel_groups()[1]
    graph.remove(inner, np.arange(3))
    assert run(graph, {"x": np.zeros((1, 3, 8, 8), np.float32)})[0].shape == (1, 5)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MatMul", ["x", "w"], ["y"], name="last")],
        [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["s"]), node("MatMul", ["s", "v"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "x"], ["s"]), node("MatMul", ["s", "v"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Concat", ["h", "x"], ["s"], axis=-1),
         node("MatMul", ["s", "u"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "square"], ["s"]), node("MatMul", ["s", "v"], ["y"]),
         node("Transpose", ["h"], ["extra"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Reshape", ["h", "odd"], ["s"]), node("MatMul", ["s", "half"], ["y"])],
        [node("Gather", ["table", "ids"], ["e"]), node("MatMul", ["e", "w"], ["y"])],
    ],
)  # fmt: skip
def test_what_cannot_be_followed_stays_whole(nodes: list[Any]) -> None:
    outputs = ["y", "extra"] if any("extra" in each.output for each in nodes) else ["y"]
    made = model(
        nodes,
        {"x": (FLOAT, ["n", 8]), "ids": (INT64, ["n"])},
        outputs,
        {
            "w": random(8, 8), "v": random(8, 8, seed=1), "u": random(16, 8), "square": random(8, 8),
            "half": random(4, 8), "odd": np.array([-1, 4]), "table": random(9, 8),
        },
    )  # fmt: skip
    assert Graph.from_model(made).channel_groups() == []
