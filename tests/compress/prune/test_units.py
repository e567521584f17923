"""Units really leave: a thinner model computes what the one with zeroed columns does, and less."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from compress_nets import FLOAT, Data, Rows, model, random
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.compress.pipeline import Settings
from tidemill.compress.prune.laplace import METHOD
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array


def residual_net(channels: int = 8) -> Any:
    """A stem, a residual block whose inner convolution stands alone, pooling, a wider convolution, a head."""
    node, c = helper.make_node, channels
    return model(
        [
            node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c0"], ["r0"]),
            node("Conv", ["r0", "w1", "b1"], ["c1"], name="inner", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "w2", "b2"], ["c2"], name="outer", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Add", ["c2", "r0"], ["sum"], name="residual"),
            node("Relu", ["sum"], ["r2"]),
            node("Conv", ["r2", "w3", "b3"], ["c3"], name="wide", kernel_shape=[3, 3], strides=[2, 2]),
            node("Relu", ["c3"], ["r3"]),
            node("GlobalAveragePool", ["r3"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w4", "b4"], ["y"], name="head", transB=1),
        ],
        {"x": (FLOAT, ["batch", 3, 12, 12])},
        ["y"],
        {
            **{"w0": random(c, 3, 3, 3, seed=1), "w1": random(c, c, 3, 3, seed=2), "w2": random(c, c, 3, 3, seed=3)},
            **{"w3": random(2 * c, c, 3, 3, seed=4), "w4": random(5, 2 * c, seed=5)},
            **{f"b{at}": random(size, seed=6 + at) for at, size in enumerate((c, c, c, 2 * c, 5))},
        },
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    graph = Graph.from_model(residual_net())
    pictures = np.random.default_rng(0).normal(size=(60, 3, 12, 12)).astype(np.float32)
    with ThreadPoolExecutor(1) as pool:
        yield Workbench(
            graph,
            graph,
            Data(Rows({"x": pictures[:40]}), Rows({"x": pictures[40:]})),
            Settings(work=tmp_path, executor=pool),
        )


def outputs(graph: Graph, bench: Workbench) -> Array:
    return np.concatenate([graph.session().run(None, each)[0] for each in bench.data.held])


def shapes(graph: Graph) -> dict[str, tuple[int, int]]:
    return {layer.name: layer.shape for layer in graph.layers()}


def test_half_of_the_channels_leave_through_residuals_too(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({"units": "channels"}))
    found = shapes(outcome.graph)
    assert found["stem"] == (4, 27)
    assert found["inner"] == (4, 4 * 9)
    assert found["outer"] == (4, 4 * 9), "what is added up goes together"
    assert found["wide"] == (8, 4 * 9)
    assert found["head"] == (5, 8)
    assert outcome.graph.size_bytes < 0.6 * bench.graph.size_bytes
    assert outcome.layers["head"].form.decode().shape == (5, 8)
    after = outputs(outcome.graph, bench)
    before = outputs(bench.graph, bench)
    spread = ((before - before.mean(axis=0)) ** 2).sum()
    assert ((after - before) ** 2).sum() < spread


def test_consumers_that_were_fitted_do_better_than_ones_that_were_not(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({"units": "channels", "sparsity": 0.25}))
    plain = bench.graph.copy()
    for name in [group.name for group in plain.channel_groups()]:
        group = next(each for each in plain.channel_groups() if each.name == name)
        made = np.abs(plain.weight(group.producers[0].layer)).sum(axis=1)
        plain.remove(group, np.argsort(-made)[: group.size - group.size // 4])
    before = outputs(bench.graph, bench)
    assert ((outputs(outcome.graph, bench) - before) ** 2).sum() < ((outputs(plain, bench) - before) ** 2).sum()


def test_curves_take_more_where_it_costs_less(bench: Workbench) -> None:
    (outcome,) = METHOD.run(bench, METHOD.settle({"units": "channels", "allocation": "curves"}))
    left = [layer.shape[0] for layer in outcome.graph.layers()]
    assert left != [4, 4, 4, 8, 5]
    assert outcome.graph.size_bytes < 0.8 * bench.graph.size_bytes


def test_a_step_that_is_not_for_all_readers_of_a_group_leaves_it(bench: Workbench) -> None:
    def head(layer: Layer) -> bool:
        return layer.name == "head"

    bench.match = head
    (outcome,) = METHOD.run(bench, METHOD.settle({"units": "channels"}))
    assert shapes(outcome.graph)["head"] == (5, 8)
    assert shapes(outcome.graph)["inner"] == shapes(bench.graph)["inner"]


def test_units_that_the_model_lacks_are_refused(bench: Workbench) -> None:
    with pytest.raises(InvalidRecipe, match="channels"):
        METHOD.run(bench, METHOD.settle({"units": "heads"}))
