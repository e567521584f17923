"""How sure the data make us of a layer's weights: their Gaussian posterior by Laplace's approximation; pure functions.

Around the trained weights w* the log posterior is taken to second order, which leaves N(w*, Σ) with
Σ⁻¹ = −∇² log p(D | w) + τI (MacKay, A practical Bayesian framework for backpropagation networks, 1992). For
a layer y = W x the first term is n · G ⊗ A: A = E[x xᵀ] of its inputs, and G = E[g gᵀ] of the loss gradients g at its
outputs (Martens and Grosse, K-FAC, 2015). Where no gradients are at hand G is I/σ²: the outputs are seen
with noise of variance σ², and rows do not know each other. The same H⁻¹ is what `prune/laplace.py` prunes by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy.linalg

from tidemill.compress.task import Moments
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

Structure: TypeAlias = Literal["diagonal", "kronecker", "full"]
FULL_WEIGHTS_MAX = 4096
"""A full block holds the square of the number of weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """N(mean, Σ) over the weights of one layer, float64 [out, in], kept by eigenvectors of Σ.

    Eigenvectors are the columns of `output` ⊗ `input` for "kronecker" (None: axes), of `input` alone for "full", where
    they are [out · in, out · in]; `variances` are Σ's eigenvalues, [out, in] (of "full" in that shape too).
    """

    structure: Structure
    mean: Array
    variances: Array
    input: Array | None = None
    output: Array | None = None

    def variance(self) -> Array:
        """The marginal variance of each weight, [out, in]."""
        if self.structure == "full" and self.input is not None:
            return np.asarray((self.input**2 @ self.variances.ravel()).reshape(self.mean.shape))
        found = self.variances
        if self.input is not None:
            found = found @ (self.input**2).T
        return np.asarray(found if self.output is None else self.output**2 @ found)

    def saliency(self) -> Array:
        """w² / 2Σᵢᵢ: with n and τ put aside, what the Optimal Brain Surgeon ranks weights by."""
        return np.asarray(self.mean**2 / (2 * self.variance()))

    def sample(self, count: int, seed: int = 0) -> Array:
        """Weights drawn from it, [count, out, in]; the same for the same seed."""
        drawn = np.random.default_rng(seed).standard_normal((count, *self.mean.shape)) * np.sqrt(self.variances)
        if self.structure == "full" and self.input is not None:
            drawn = (drawn.reshape(count, -1) @ self.input.T).reshape(drawn.shape)
        else:
            drawn = drawn if self.input is None else drawn @ self.input.T
            drawn = drawn if self.output is None else self.output @ drawn
        return np.asarray(self.mean + drawn)

    def predictive_variance(self, inputs: Array) -> Array:
        """Var[(W x)ᵢ] that not knowing W leaves, [rows, out], for `inputs` [rows, in]: xᵀ Σᵢ x, Σᵢ of row i of W."""
        rows, columns = self.mean.shape
        given = np.asarray(inputs, np.float64)
        if self.structure == "full" and self.input is not None:
            blocks = self.input.reshape(rows, columns, -1)
            along = np.einsum("nk,okp->nop", given, blocks)
            return np.asarray(along**2 @ self.variances.ravel())
        along = given if self.input is None else given @ self.input
        found = along**2 @ self.variances.T
        return np.asarray(found if self.output is None else found @ (self.output**2).T)


def posterior(
    weight: Array,
    moments: Moments,
    structure: Structure = "kronecker",
    *,
    gradients: Array | None = None,
    noise: float = 1.0,
    prior: float = 1.0,
) -> Posterior:
    """The posterior of one layer. `gradients` is G [out, out] or None for I/`noise` (σ²); `prior` is τ > 0.

    diagonal: 1 / (n Gᵢᵢ Aⱼⱼ + τ), which is Optimal Brain Damage's picture of a linear layer (LeCun, Denker and Solla,
    1990). kronecker: the same of the eigenvalues of G and A, in their eigenvectors; so τ is exact, where a τ put into
    both factors is only close (Ritter, Botev and Barber, A scalable Laplace approximation for neural networks, 2018).
    full: as kronecker, held as one block; `full` takes any other precision. Raises `RefusedLayer`.
    """
    rows, columns = weight.shape
    a = np.asarray(moments.second, np.float64)
    if a.shape != (columns, columns):
        raise RefusedLayer(f"moments of {len(a)} inputs do not fit weights of {columns}")
    g = np.eye(rows) / _positive(noise, "noise") if gradients is None else np.asarray(gradients, np.float64)
    if g.shape != (rows, rows):
        raise RefusedLayer(f"gradients' moments are {list(g.shape)}, and the layer has {rows} outputs")
    if not (np.isfinite(a).all() and np.isfinite(g).all() and np.isfinite(weight).all()):
        raise RefusedLayer("weights, inputs or gradients are not all finite")
    tau = _positive(prior, "prior")
    mean = np.asarray(weight, np.float64)
    if structure == "diagonal":
        apart = moments.count * np.outer(_clipped(np.diagonal(g)), _clipped(np.diagonal(a))) + tau
        return Posterior("diagonal", mean, 1 / apart)
    if structure == "full":
        return full(weight, moments.count * np.kron(g, a), prior=prior)
    inputs, input = np.linalg.eigh((a + a.T) / 2)
    if gradients is None:
        outputs, output = np.diagonal(g), None
    else:
        outputs, output = np.linalg.eigh((g + g.T) / 2)
    precision = moments.count * np.outer(_clipped(outputs), _clipped(inputs)) + tau
    return Posterior("kronecker", mean, 1 / precision, input, output)


def full(weight: Array, precision: Array, *, prior: float = 1.0) -> Posterior:
    """A posterior of one block: `precision` [out · in, out · in] is what the data say (weights in row order), such as
    the sum of g gᵀ over the rows' gradients; τI is added. Raises `RefusedLayer` above `FULL_WEIGHTS_MAX` weights."""
    if weight.size > FULL_WEIGHTS_MAX:
        raise RefusedLayer(
            f"a full block of {weight.size} weights takes {weight.size**2 * 8 >> 20} MiB; at most {FULL_WEIGHTS_MAX}"
            " weights are taken: use kronecker or diagonal"
        )
    if precision.shape != (weight.size, weight.size):
        raise RefusedLayer(f"a precision of {list(precision.shape)} does not fit {weight.size} weights")
    values, vectors = scipy.linalg.eigh((precision + precision.T) / 2)
    variances = 1 / (_clipped(values) + _positive(prior, "prior"))
    return Posterior("full", np.asarray(weight, np.float64), variances.reshape(weight.shape), vectors)


def _clipped(values: Array) -> Array:
    """Rounding may leave eigenvalues of what is positive a little below zero."""
    return np.clip(values, 0.0, None)


def _positive(value: float, name: str) -> float:
    if not (np.isfinite(value) and value > 0):
        raise RefusedLayer(f"{name} is {value!r}, and must be above 0")
    return value
