"""Laws that every layer-wise quantiser keeps, whatever the layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.forms import Activation, Codebook, Uniform
from tidemill.compress.quantise.book import lloyd
from tidemill.compress.quantise.grid import plain
from tidemill.compress.quantise.inputs import learned
from tidemill.compress.task import LayerTask, Moments, Solver
from tidemill.core import registry
from tidemill.core.errors import InvalidRecipe, RefusedLayer

QUICK = {"steps": 20, "sweeps": 2}
SOLVERS: list[tuple[str, dict[str, Any]]] = [
    ("gptq", {"bits": 4, "block": 16, "sweeps": 2}),
    ("gptq", {"bits": 3, "block": 0, "symmetric": True, "act_order": False, "sweeps": 0}),
    ("adaquant", {"bits": 4, "block": 16, **QUICK}),
    ("adaquant", {"bits": 2, "offsets": "free", **QUICK}),
    ("adaquant", {"form": "classic", "bits": 4, **QUICK}),
    ("kmeans", {"values": 8, **QUICK}),
    ("kmeans", {"values": 4, "per": "tensor", **QUICK}),
    ("two-bit", {"block": 16, **QUICK}),
    ("binary", {"block": 16, **QUICK}),
]
ROUNDS_INPUTS: list[tuple[str, dict[str, Any]]] = [
    ("binary", {"activations": True, "biases": True, **QUICK}),
    ("two-bit", {"activations": True, "biases": True, **QUICK}),
    ("adaquant", {"activation_bits": 4, **QUICK}),
    ("binary", {"values": "range"}),
]
NAMES = [f"{name} {options}" for name, options in SOLVERS]


def moments(inputs: np.ndarray) -> Moments:
    counts, edges = np.histogram(inputs, 256)
    second = inputs.astype(np.float64).T @ inputs / len(inputs)
    return Moments(len(inputs), second, inputs.mean(0), inputs.min(0), inputs.max(0), counts, edges)


def layer(seed: int, out: int, columns: int, rows: int = 80, *, bias: bool = True) -> LayerTask:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(columns, columns)) * rng.exponential(size=columns)
    inputs = [rng.normal(size=(count, columns)) @ mix + 0.5 for count in (rows, rows)]
    weight = rng.normal(size=(out, columns)).astype(np.float32)
    given = rng.normal(size=out).astype(np.float32) if bias else None
    return LayerTask("layer", weight, given, moments(inputs[0]), moments(inputs[1]), seed)


def solver(name: str) -> Solver:
    method = registry.load(f"solver.{name}")
    assert method.name == name
    assert method.solver is not None
    return method.solver


def error(task: LayerTask, weight: np.ndarray, bias: np.ndarray | None, of: Moments) -> float:
    """E‖W x + b − Ŵ x − b̂‖² / E‖W x‖², straight from its definition."""
    lost = (task.weight - weight).astype(np.float64)
    shift = np.zeros(len(lost)) if bias is None or task.bias is None else (task.bias - bias).astype(np.float64)
    whole = np.einsum("ij,ij->", task.weight @ of.second, task.weight)
    found = np.einsum("ij,ij->", lost @ of.second, lost) + 2 * shift @ lost @ of.mean + shift @ shift
    return float(found / whole) if whole > 0 else 0.0


def plainly(task: LayerTask, options: dict[str, Any], form: Any) -> np.ndarray:
    """Round-to-nearest with as many bits and the same blocks."""
    weight = task.weight.astype(np.float64)
    if isinstance(form, Codebook):
        book = lloyd(weight, np.ones(weight.shape[1]), form.values.shape[1], by_row=len(form.values) > 1)
        return book.form(book.all_codes(weight)).decode()
    grid = plain(weight, form.bits, form.block or weight.shape[1], whole=form.zero_points.dtype == np.uint8,
                 symmetric=bool(options.get("symmetric") or options.get("form") == "classic")).stored()  # fmt: skip
    return grid.form(grid.all_codes(weight)).decode()


@pytest.mark.parametrize(("name", "options"), SOLVERS, ids=NAMES)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40), st.integers(1, 80), st.booleans())
@settings(max_examples=12, deadline=None)
def test_error_on_training_rows_is_never_above_plain_rounding(
    name: str, options: dict[str, Any], seed: int, out: int, columns: int, rows: int, bias: bool
) -> None:
    task = replace(layer(seed, out, columns, rows, bias=bias), options=options)
    result = solver(name).solve(task)
    decoded = result.form.decode()
    assert decoded.shape == task.weight.shape
    assert decoded.dtype == np.float32
    assert (result.bias is None) == (task.bias is None)
    assert result.error_fit == pytest.approx(error(task, decoded, result.bias, task.fit), rel=1e-3, abs=1e-9)
    assert result.error_held == pytest.approx(error(task, decoded, result.bias, task.held), rel=1e-3, abs=1e-9)
    rounded = plainly(task, options, result.form)
    shift = None if task.bias is None else task.bias + (task.weight - rounded).astype(np.float64) @ task.fit.mean
    assert result.error_fit <= error(task, rounded, shift, task.fit) * (1 + 1e-4) + 1e-9


@pytest.mark.parametrize(("name", "options"), [*SOLVERS, *ROUNDS_INPUTS])
def test_the_same_task_is_answered_alike(name: str, options: dict[str, Any]) -> None:
    task = replace(layer(7, 5, 33), options=options)
    first, second = solver(name).solve(task), solver(name).solve(task)
    assert np.array_equal(first.form.decode(), second.form.decode())
    assert first.bias is not None
    assert second.bias is not None
    assert np.array_equal(first.bias, second.bias)
    assert (first.error_fit, first.error_held, first.activation) == (
        second.error_fit,
        second.error_held,
        second.activation,
    )


@pytest.mark.parametrize(("name", "options"), SOLVERS, ids=NAMES)
@pytest.mark.parametrize("kind", ["zero", "constant", "one column", "one row", "dead inputs", "huge", "tiny"])
def test_layers_out_of_the_ordinary_are_solved(name: str, options: dict[str, Any], kind: str) -> None:
    task = layer(3, 1 if kind == "one row" else 4, 1 if kind == "one column" else 20)
    weight = task.weight.copy()
    if kind == "zero":
        weight[:] = 0
    elif kind == "constant":
        weight[0] = 0.7
    elif kind == "huge":
        weight *= 1e18
    elif kind == "tiny":
        weight *= 1e-18
    elif kind == "dead inputs":
        second = task.fit.second.copy()
        second[:5] = second[:, :5] = 0
        mean = np.where(np.arange(20) < 5, 0, task.fit.mean)
        task = replace(task, fit=replace(task.fit, second=second, mean=mean))
    result = solver(name).solve(replace(task, weight=weight, options=options))
    assert np.isfinite(result.form.decode()).all()
    if kind == "zero":
        assert not result.form.decode().any()
        assert result.error_fit == 0
    if kind == "dead inputs":
        assert "5 of 20 inputs never vary" in " ".join(result.notes)
        # The data say nothing of those weights, so they are rounded and not put to use.
        assert np.abs(result.form.decode()[:, :5] - weight[:, :5]).max() <= 2 * np.abs(weight).max()


@pytest.mark.parametrize(("name", "options"), SOLVERS, ids=NAMES)
def test_too_few_rows_are_damped_and_said(name: str, options: dict[str, Any]) -> None:
    result = solver(name).solve(replace(layer(1, 3, 30, rows=4), options=options))
    assert result.damping > 0
    assert "4 rows give H rank 3 of 30" in " ".join(result.notes)


@pytest.mark.parametrize("name", ["gptq", "adaquant", "kmeans", "two-bit", "binary"])
def test_what_is_not_finite_is_refused(name: str) -> None:
    task = layer(1, 3, 4)
    weight = task.weight.copy()
    weight[1, 1] = np.nan
    with pytest.raises(RefusedLayer, match="not all finite"):
        solver(name).solve(replace(task, weight=weight))
    with pytest.raises(RefusedLayer, match="not all finite"):
        solver(name).solve(replace(task, fit=replace(task.fit, second=task.fit.second * np.inf)))


@pytest.mark.parametrize("name", ["gptq", "adaquant", "kmeans", "two-bit", "binary"])
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(InvalidRecipe, match="no option 'bitz'"):
        solver(name).solve(replace(layer(1, 3, 4), options={"bitz": 4}))


def test_an_embedding_is_rounded_row_by_row_however_many_rows() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5000, 32)).astype(np.float32)
    same = Moments(5000, np.eye(32), np.zeros(32), weight.min(0), weight.max(0), np.ones(1), np.array([-1.0, 1.0]))
    task = LayerTask("words", weight, None, same, same, 0, {})
    whole = solver("adaquant").solve(task)
    part = solver("adaquant").solve(replace(task, weight=weight[3000:3100]))
    assert np.array_equal(whole.form.decode()[3000:3100], part.form.decode())
    assert whole.error_fit < 0.0075  # round-to-nearest: 0.0092


def test_two_fitted_values_beat_sign_times_mean_and_chance() -> None:
    task = layer(5, 8, 64, 400)
    weight = task.weight
    found = solver("binary").solve(replace(task, options={"block": 0}))
    signs = np.sign(weight) * np.abs(weight).mean()
    assert found.error_fit < error(task, signs, task.bias, task.fit)
    assert isinstance(found.form, Uniform)
    chance = replace(found.form, codes=np.random.default_rng(0).integers(0, 2, weight.shape).astype(np.uint8))
    assert found.error_fit < 0.5 * error(task, chance.decode(), task.bias, task.fit)


def test_learned_rounding_loses_less_than_compensated_rounding() -> None:
    task = layer(11, 16, 48, 400)
    learned_error = solver("adaquant").solve(replace(task, options={"bits": 3, "block": 16})).error_fit
    assert learned_error < solver("gptq").solve(replace(task, options={"bits": 3, "block": 16})).error_fit


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_inputs_take_no_more_values_than_asked_and_lie_within_bounds(bits: int) -> None:
    inputs = np.random.default_rng(bits).normal(size=(500, 8))
    found = learned(moments(inputs), bits, within=1.0).activation
    values = np.unique(found.apply(inputs.astype(np.float32)))
    assert len(values) <= 2**bits
    assert np.abs(values).max() <= 1 + 1e-6 + (found.scale / 2 if bits > 2 else 0)


def test_inputs_of_two_values_are_about_the_best_two_for_a_normal_distribution() -> None:
    found = learned(moments(np.random.default_rng(0).normal(size=(20000, 4))), 1)
    # The best two values for it are ±√(2/π), which leave 1 − 2/π of its variance.
    values = found.activation.apply(np.array([-3.0, 3.0], np.float32))
    np.testing.assert_allclose(values, [-0.798, 0.798], atol=0.05)
    assert found.gain == pytest.approx(2 / np.pi, abs=0.03)


@pytest.mark.parametrize(("name", "options"), ROUNDS_INPUTS[:3])
def test_rounded_inputs_are_told_of_and_their_error_foreseen(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4000, 24)) * 0.7
    weight, bias = rng.normal(size=(6, 24)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    options = {key: value for key, value in options.items() if key != "biases"}
    task = LayerTask("layer", weight, bias, moments(inputs), moments(inputs), 0, options)
    result = solver(name).solve(task)
    assert isinstance(result.activation, Activation)
    assert result.bias is not None
    wanted = inputs @ weight.T + bias
    found = result.activation.apply(inputs.astype(np.float32)) @ result.form.decode().T + result.bias
    measured = np.square(found - wanted).sum(1).mean() / np.square(inputs @ weight.T).sum(1).mean()
    assert result.error_fit == pytest.approx(measured, rel=0.1)


def test_biases_take_few_values_where_asked() -> None:
    for name, most in (("binary", 2), ("two-bit", 4)):
        result = solver(name).solve(replace(layer(2, 12, 20), options={"biases": True, **QUICK}))
        assert result.bias is not None
        assert len(np.unique(result.bias)) <= most
