"""The Gaussian over a layer's weights: its three structures agree where they must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.posterior import Posterior, Structure, full, posterior
from tidemill.compress.task import Moments
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

STRUCTURES: tuple[Structure, ...] = ("diagonal", "kronecker", "full")


def layer(out: int, features: int, seed: int) -> tuple[Array, Moments, Array]:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(60, features)) @ chance.normal(size=(features, features))
    gradients = chance.normal(size=(60, out)) @ chance.normal(size=(out, out))
    nothing = np.zeros(features)
    moments = Moments(60, rows.T @ rows / 60, rows.mean(axis=0), nothing, nothing, np.zeros(1), np.zeros(2))
    return chance.normal(size=(out, features)), moments, gradients.T @ gradients / 60


def dense(found: Posterior, rows: int, columns: int) -> Array:
    """Σ, from predictive variances of pairs of directions would not do: from the eigenvectors."""
    if found.structure == "full":
        basis = found.input
    else:
        basis = np.kron(
            np.eye(rows) if found.output is None else found.output,
            np.eye(columns) if found.input is None else found.input,
        )
    return (basis * found.variances.ravel()) @ basis.T


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 5), st.booleans(), st.floats(0.1, 10), st.integers(0, 99))
def test_kronecker_and_full_are_the_inverse_precision(
    out: int, features: int, seen: bool, prior: float, seed: int
) -> None:
    weight, moments, gradients = layer(out, features, seed)
    g = gradients if seen else np.eye(out) / 0.5
    precision = 60 * np.kron(g, moments.second) + prior * np.eye(out * features)
    for structure in ("kronecker", "full"):
        found = posterior(weight, moments, structure, gradients=gradients if seen else None, noise=0.5, prior=prior)
        assert np.allclose(dense(found, out, features) @ precision, np.eye(out * features), atol=1e-6)
    assert np.allclose(found.variance(), np.diagonal(np.linalg.inv(precision)).reshape(weight.shape))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_variances_of_weights_and_outputs_follow_from_the_whole(structure: Structure) -> None:
    weight, moments, gradients = layer(3, 4, 1)
    found = posterior(weight, moments, structure, gradients=gradients)
    whole = dense(found, 3, 4)
    assert np.allclose(found.variance(), np.diagonal(whole).reshape(3, 4))
    assert np.allclose(found.saliency(), weight**2 / 2 / found.variance())
    rows = np.random.default_rng(0).normal(size=(5, 4))
    told = found.predictive_variance(rows)
    for at in range(3):
        block = whole[at * 4 : at * 4 + 4, at * 4 : at * 4 + 4]
        assert np.allclose(told[:, at], np.einsum("nk,kl,nl->n", rows, block, rows))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_samples_have_the_mean_and_the_spread(structure: Structure) -> None:
    weight, moments, gradients = layer(2, 3, 2)
    found = posterior(weight, moments, structure, gradients=gradients)
    drawn = found.sample(20_000, seed=7)
    assert np.array_equal(drawn[:10], found.sample(20_000, seed=7)[:10])
    whole = dense(found, 2, 3)
    shown = np.cov(drawn.reshape(len(drawn), -1).T)
    assert np.allclose(shown, whole, atol=0.05 * np.abs(whole).max())
    assert np.allclose(drawn.mean(axis=0), weight, atol=0.05 * np.sqrt(whole.max()))


def test_more_rows_make_surer() -> None:
    weight, moments, _ = layer(2, 3, 0)
    few = posterior(weight, moments).variance()
    more = Moments(6000, moments.second, moments.mean, moments.low, moments.high, moments.histogram, moments.edges)
    assert (posterior(weight, more).variance() < few).all()


def test_what_makes_no_posterior_is_refused() -> None:
    weight, moments, _ = layer(2, 3, 0)
    with pytest.raises(RefusedLayer, match="prior"):
        posterior(weight, moments, prior=0.0)
    with pytest.raises(RefusedLayer, match="noise"):
        posterior(weight, moments, noise=float("nan"))
    with pytest.raises(RefusedLayer, match="2 outputs"):
        posterior(weight, moments, gradients=np.eye(3))
    with pytest.raises(RefusedLayer, match="do not fit"):
        posterior(np.zeros((2, 4)), moments)
    with pytest.raises(RefusedLayer, match="kronecker or diagonal"):
        full(np.zeros((100, 100)), np.zeros((1, 1)))
