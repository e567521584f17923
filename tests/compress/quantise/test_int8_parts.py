from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compress.quantise import encoders
from tidemill.compress import fuse
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import hessian
from tidemill.compress.quantise import ranges, rounding, smooth, static, watch
from tidemill.compress.task import Moments, output_error

BATCHES = encoders.batches(6, 3)
VALUES = arrays.arrays(np.float64, 300, elements=st.floats(-100, 100, width=32))


@pytest.mark.parametrize("erf", [True, False])
def test_fused_graph_is_the_same_function(erf):
    graph = Graph.from_model(encoders.encoder(erf))
    fused = graph.copy()
    notes = fuse.fuse(fused)
    assert len(notes) == 2 + erf
    ops = [node.op_type for node in fused.nodes]
    assert ops.count("Gemm") == 6
    assert ops.count("Gelu") == 1
    assert "Erf" not in ops
    assert "Div" not in ops
    assert [layer.name for layer in fused.layers()] == [layer.name for layer in graph.layers()]
    for batch in BATCHES:
        before, after = encoders.answers(graph, batch), encoders.answers(fused, batch)
        assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()


def test_fusing_twice_changes_nothing():
    graph = Graph.from_model(encoders.encoder())
    fuse.fuse(graph)
    assert fuse.fuse(graph) == []


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("in_front", [True, False])
def test_smoothing_is_exact(strength, in_front, tmp_path):
    graph = Graph.from_model(encoders.encoder())
    fuse.fuse(graph)
    layers = [layer for layer in graph.layers() if layer.op == "Gemm"]
    inputs = {layer.input: -1 for layer in layers}
    seen = watch.watch(graph, inputs, BATCHES, tmp_path, 1, rows=64)
    moves = smooth.shifts(graph, layers, seen, strength)
    before = graph.copy()
    folded, multiplied = smooth.apply(graph, moves, static.alike(before, BATCHES[0], 1), in_front)
    assert folded >= 1  # through attention, into the values
    assert multiplied == (len(moves) - folded if in_front else 0)
    for batch in BATCHES:
        first, second = encoders.answers(before, batch), encoders.answers(graph, batch)
        assert np.abs(first - second).max() < 1e-4 * np.abs(first).max()


@settings(max_examples=40, deadline=None)
@given(VALUES, st.sampled_from(ranges.CHOICES), st.booleans())
def test_what_lies_in_range_is_half_a_step_off_at_most(values, choice, signed):
    counts, edges = np.histogram(values, 256)
    grid = ranges.choose(counts, edges, choice, signed)
    assert 0 <= grid.zero_point <= 255
    assert grid.apply(np.zeros(1, np.float32))[0] == 0
    low, high = (grid.scale * (code - grid.zero_point) for code in (0, 255))
    inside = values[(values >= low) & (values <= high)]
    assert np.all(np.abs(grid.apply(inside.astype(np.float32)) - inside) <= 0.5001 * grid.scale + 1e-4)


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_least_squares_is_no_worse_than_the_whole_range(values):
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    loss = {}
    for choice in ("mse", "minmax"):
        grid = ranges.choose(counts, edges, choice)
        loss[choice] = float(counts @ np.square(grid.apply(centres) - centres)) + counts.sum() * grid.scale**2
    # A step's own error, which no bin shows, is what it may trade.
    assert loss["mse"] <= loss["minmax"] * 1.5 + 1e-9


def test_what_is_cut_counts_more_than_what_is_rounded():
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [9.0]])
    counts, edges = np.histogram(values, 2048)
    reach = [ranges.choose(counts, edges, "mse", cut=cut) for cut in (1, 100)]
    ends = [(255 - each.zero_point) * each.scale for each in reach]
    assert ends[0] < 8
    assert ends[1] == pytest.approx(9, rel=0.05)


def test_an_outlier_is_cut_off():
    values = np.concatenate([np.random.default_rng(0).standard_normal(100_000), [1_000.0]])
    counts, edges = np.histogram(values, 2048)
    whole, cut = (ranges.choose(counts, edges, choice).scale for choice in ("minmax", "percentile"))
    assert cut < whole / 100


@pytest.mark.parametrize("bits", [7, 8])
def test_codes_are_within_half_a_step(bits):
    weight = np.random.default_rng(0).standard_normal((12, 40)).astype(np.float32)
    scales = rounding.row_scales(weight, bits)
    codes = rounding.nearest(weight, scales, bits)
    assert np.abs(codes).max() == 2 ** (bits - 1) - 1
    assert np.all(np.abs(codes * scales[:, None] - weight) <= 0.501 * scales[:, None])


def test_compensation_never_loses_more_on_what_it_learned_from():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((400, 24)) @ draw.standard_normal((24, 24))
    moments = Moments(400, x.T @ x / 400, x.mean(0), x.min(0), x.max(0), np.zeros(1), np.zeros(2))
    weight = draw.standard_normal((16, 24)).astype(np.float32)
    scales = rounding.row_scales(weight, 8)
    plain = rounding.nearest(weight, scales, 8) * scales[:, None]
    made_up = rounding.compensated(weight, scales, 8, hessian(moments)) * scales[:, None]
    assert output_error(weight, made_up, moments) < 0.7 * output_error(weight, plain, moments)


def test_a_row_of_zeros_stays_zero():
    weight = np.zeros((2, 8), np.float32)
    weight[1] = 1
    scales = rounding.row_scales(weight, 8)
    assert not rounding.nearest(weight, scales, 8)[0].any()
