"""Evenly spaced grids and codebooks: laws of rounding to them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.quantise.book import lloyd
from tidemill.compress.quantise.grid import Grid, fitted, plain


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_t(3, size=(rows, columns)) * 10.0 ** draw(st.integers(-6, 6))
    weight += draw(st.sampled_from([0.0, 1.0, -100.0])) * np.abs(weight).max()
    kind = draw(st.sampled_from(["as it is", "zero row", "constant row", "one sign"]))
    if kind == "zero row":
        weight[0] = 0
    elif kind == "constant row":
        weight[0] = -3.25
    elif kind == "one sign":
        weight = np.abs(weight)
    return np.asarray(weight, np.float32).astype(np.float64)


@given(weights(), st.integers(1, 8), st.sampled_from([1, 3, 16, 64]), st.booleans())
@settings(max_examples=120, deadline=None)
def test_decoding_what_was_encoded_is_within_half_a_step(
    weight: np.ndarray, bits: int, block: int, whole: bool
) -> None:
    grid = plain(weight, bits, block, whole=whole).stored()
    form = grid.form(grid.all_codes(weight))
    steps = np.abs(form.scales)[:, np.arange(weight.shape[1]) // block]
    # A whole zero point moves the range by up to half a step, and may so cut half a step off one end.
    slack = 1.0 if whole else 0.5
    assert (np.abs(form.decode() - weight) <= steps * slack + 1e-5 * np.abs(weight).max()).all()
    assert form.codes.max() < 2**bits


@given(weights(), st.integers(1, 8), st.sampled_from([3, 16, 64]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_fitted_grid_never_loses_more_than_the_plain_one(
    weight: np.ndarray, bits: int, block: int, whole: bool
) -> None:
    importance = np.random.default_rng(bits).exponential(size=weight.shape[1])

    def loss(grid: Grid) -> float:
        return float((np.square(grid.decode(grid.all_codes(weight)) - weight) * importance).sum())

    basic = loss(plain(weight, bits, block, whole=whole))
    assert loss(fitted(weight, importance, bits, block, whole=whole)) <= basic * (1 + 1e-9) + 1e-12


def test_a_block_of_one_value_is_kept_exactly() -> None:
    weight = np.array([[0.3] * 8 + [-0.7] * 8, [0.0] * 16]).astype(np.float32).astype(np.float64)
    for bits in (1, 2, 4):
        grid = plain(weight, bits, 8, whole=False).stored()
        assert np.array_equal(grid.form(grid.all_codes(weight)).decode(), weight.astype(np.float32))


@given(weights(), st.integers(2, 16), st.booleans())
@settings(max_examples=60, deadline=None)
def test_codebook_gives_each_weight_its_nearest_value(weight: np.ndarray, levels: int, by_row: bool) -> None:
    book = lloyd(weight, np.ones(weight.shape[1]), levels, by_row=by_row)
    codes = book.all_codes(weight)
    nearest = np.abs(book.rungs[:, None, :] - weight[:, :, None]).min(axis=2)
    np.testing.assert_allclose(np.abs(book.decode(codes) - weight), nearest, rtol=1e-9, atol=1e-12)
    for column in range(weight.shape[1]):
        assert np.array_equal(book.codes(weight[:, column], column), codes[:, column])


def test_as_many_values_as_levels_are_kept_exactly() -> None:
    weight = np.tile(np.array([[-2.0, -0.5, 1.0, 4.0]]), (3, 8))
    book = lloyd(weight, np.ones(32), 4, by_row=True)
    assert np.array_equal(book.decode(book.all_codes(weight)), weight)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_refitting_never_raises_the_loss(seed: int, by_row: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, inputs = rng.normal(size=(4, 24)), rng.normal(size=(60, 24)) @ rng.normal(size=(24, 24))
    matrix = inputs.T @ inputs / 60

    def loss(decoded: np.ndarray) -> float:
        return float(np.einsum("ij,ij->", (decoded - weight) @ matrix, decoded - weight))

    book = lloyd(weight, np.ones(24), 6, by_row=by_row)
    codes = book.all_codes(weight)
    before = loss(book.decode(codes))
    codes = book.refit(codes, weight, matrix)
    assert loss(book.decode(codes)) <= before * (1 + 1e-9)
    assert (np.diff(book.rungs, axis=1) >= 0).all()
    grid = plain(weight, 3, 5, whole=False)
    codes = grid.all_codes(weight)
    before = loss(grid.decode(codes))
    assert loss(grid.decode(grid.refit(codes, weight, matrix))) <= before * (1 + 1e-9)
