"""What a quantiser sees of a layer: weights to aim at, H, and the loss of an answer; runs wherever a layer is solved.

A layer with a bias loses nothing by its mean (the bias takes that up in closed form), so its H is the inputs'
covariance. A layer whose inputs are rounded too sees x̂ = gain · x + shift + noise (`inputs.py`): its weights aim at
what brings W x back best from x̂, and the noise tells it which inputs are not worth following.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.compress.forms import Form
from tidemill.compress.hessian import DAMPING, Hessian, check, hessian
from tidemill.compress.quantise.inputs import Rounding, learned
from tidemill.compress.task import LayerResult, LayerTask, Moments
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Second moments: of x (`own`), of x with x̂ (`cross`) and of x̂ (`seen`), all around the means of `fit` where a
    bias takes those up, else around zero."""

    own: Array
    cross: Array
    seen: Array


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """`target` is float64 [out, in]; `hessian` is of x̂."""

    task: LayerTask
    target: Array
    hessian: Hessian
    rounding: Rounding | None
    fit: View
    held: View

    @property
    def diagonal(self) -> bool:
        """Whether no input says anything of another, as for the rows of an embedding: then each weight is alone."""
        matrix = self.hessian.matrix
        return bool(np.count_nonzero(matrix) == np.count_nonzero(np.diagonal(matrix)))

    def losses(self, compressed: Array, rows: slice = slice(None)) -> Array:
        """E(w·x − ŵ·x̂)² of each of `rows` on the training rows, the best bias put in."""
        return _losses(self.task.weight[rows], compressed, self.fit)

    def energy(self, moments: Moments) -> float:
        """E‖W x‖², 1 where that is nothing."""
        of = self.task.weight.astype(np.float64)
        return float(np.einsum("ij,ij->", of @ moments.second, of)) or 1.0

    def result(self, form: Form, notes: tuple[str, ...] = ()) -> LayerResult:
        task = self.task
        decoded = form.decode()
        if not np.isfinite(decoded).all():
            raise RefusedLayer("the weights are too large or too small to be written down in this form")
        bias = None
        if task.bias is not None:
            mean = np.asarray(task.fit.mean, np.float64)
            seen = mean if self.rounding is None else self.rounding.gain * mean + self.rounding.shift
            shift = task.weight.astype(np.float64) @ mean - decoded.astype(np.float64) @ seen
            bias = np.asarray(task.bias + shift, np.float32)
        return LayerResult(
            form,
            bias,
            None if self.rounding is None else self.rounding.activation,
            _share(task.weight, decoded, self.fit, task.fit.second),
            _share(task.weight, decoded, self.held, task.held.second),
            self.hessian.damping,
            (*self.hessian.notes, *notes),
        )


def look(task: LayerTask, *, damping: float = DAMPING, activation_bits: int = 0, within: float | None = None) -> Sight:
    """The layer as a quantiser needs it; `activation_bits` 0 leaves its inputs as they are.

    Raises `RefusedLayer` for weights or moments that are not finite.
    """
    check(task)
    rounding = learned(task.fit, activation_bits, within) if activation_bits else None
    fit = _view(task.fit, task.fit, rounding, centred=task.bias is not None)
    held = _view(task.held, task.fit, rounding, centred=task.bias is not None)
    size = len(fit.seen)
    seen = Moments(
        task.fit.count, fit.seen, np.zeros(size), task.fit.low, task.fit.high, task.fit.histogram, task.fit.edges
    )
    found = hessian(seen, damping)
    weight = task.weight.astype(np.float64)
    if rounding is None:
        return Sight(task, weight, found, rounding, fit, held)
    # Ridge towards W / gain, in which the damping cancels where the noise is nothing.
    slack = found.matrix - fit.seen
    towards = weight / rounding.gain if abs(rounding.gain) > 1e-6 else 0.0 * weight
    target = np.linalg.solve(found.matrix, (weight @ fit.cross + towards @ slack).T).T
    return Sight(task, target, found, rounding, fit, held)


def _view(moments: Moments, fit: Moments, rounding: Rounding | None, *, centred: bool) -> View:
    second = np.asarray(moments.second, np.float64)
    mean = np.asarray(moments.mean, np.float64)
    centre = np.asarray(fit.mean, np.float64) if centred else np.zeros(len(mean))
    across = np.outer(mean, centre)
    own = second - across - across.T + np.outer(centre, centre)
    if rounding is None:
        return View(own, own, own)
    gain, shift = rounding.gain, 0.0 if centred else rounding.shift
    off = np.broadcast_to(mean - centre, own.shape)
    cross = gain * own + shift * off.T
    seen = gain * gain * own + gain * shift * (off + off.T) + shift * shift + rounding.noise * np.eye(len(own))
    return View(own, cross, seen)


def _losses(weight: Array, compressed: Array, view: View) -> Array:
    of, by = weight.astype(np.float64), compressed.astype(np.float64)
    if view.seen is view.own:
        lost = of - by
        return np.asarray(np.maximum(np.einsum("ij,ij->i", lost @ view.own, lost), 0.0))
    both = np.einsum("ij,ij->i", of @ view.own, of) - 2 * np.einsum("ij,ij->i", of @ view.cross, by)
    return np.asarray(np.maximum(both + np.einsum("ij,ij->i", by @ view.seen, by), 0.0))


def _share(weight: Array, compressed: Array, view: View, second: Array) -> float:
    of = weight.astype(np.float64)
    whole = float(np.einsum("ij,ij->", of @ second, of))
    return float(_losses(weight, compressed, view).sum()) / whole if whole > 0 else 0.0
