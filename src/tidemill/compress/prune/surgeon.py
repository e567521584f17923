"""The solver of `--method laplace`: one layer pruned by the second-order expansion at its weights; runs in workers.

The loss around a minimum is ½ δᵀHδ, so a weight costs w²/2[H⁻¹]ᵢᵢ when the others make up for it, and the best others
are known in closed form (`obs.py`, `structured.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidemill.compress.forms import Dense
from tidemill.compress.hessian import DAMPING, Hessian, check, hessian
from tidemill.compress.prune import obs, structured
from tidemill.compress.prune.obs import Pattern
from tidemill.compress.task import LayerResult, LayerTask, Moments
from tidemill.core.errors import InvalidRecipe
from tidemill.core.tensor import Array

SEARCHES = ("auto", "sweep", "alternate", "eliminate")
ELIMINATE_MAX = 1e9
"""Layers of up to so many out · in³ are searched weight by weight too, which takes a few seconds."""
COMPARE_MAX = 5e9
"""And those of up to so many out · in³ keep the best of all searches."""


class Surgeon:
    """`Solver`. Options, all with defaults: `sparsity`; `pattern` ("2:4", "" for none); `search`;
    `damping`; `shares` {layer: sparsity of its own}; `units` {layer: {"width": columns of one unit, "keep": how many
    units}} or {layer: {"columns": those to keep}} for a layer that loses whole input columns."""

    def solve(self, task: LayerTask) -> LayerResult:
        check(task)
        options = task.options
        of = hessian(task.fit, float(options.get("damping", DAMPING)), centred=task.bias is not None)
        weight = task.weight.astype(np.float64)
        name = re.sub(r"\[\d+\]$", "", task.name)
        units = options.get("units", {}).get(name)
        if units is None:
            sparsity = float(options.get("shares", {}).get(name, options.get("sparsity", 0.5)))
            pruned = prune(weight, of, read_pattern(str(options.get("pattern", "")), sparsity), _search(options))
        else:
            pruned = _fewer_columns(weight, of, units)
        return answer(task, pruned, of)


SOLVER = Surgeon()


def read_pattern(words: str, sparsity: float) -> Pattern:
    """ "2:4" is two kept of every four. Raises `InvalidRecipe`."""
    if not words or words == "none":
        return Pattern(sparsity)
    found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", words)
    if not found or not 0 < int(found[1]) <= int(found[2]):
        raise InvalidRecipe(f"pattern {words!r} is not N:M with 0 < N <= M, such as 2:4 (two kept of every four)")
    return Pattern(kept=int(found[1]), group=int(found[2]))


def prune(weight: Array, of: Hessian, pattern: Pattern, search: str = "auto") -> Array:
    """The weights, pruned and refitted; float64 [out, in]."""
    work = float(weight.shape[0]) * weight.shape[1] ** 3
    chosen = [search]
    if search == "auto":
        chosen = ["alternate"]
        chosen += ["sweep"] if work <= COMPARE_MAX else []
        chosen += ["eliminate"] if work <= ELIMINATE_MAX else []
    found = [obs.refit(weight, _mask(weight, of, pattern, each), of.matrix) for each in chosen]
    return min(found, key=lambda pruned: float(obs.loss(weight, pruned, of.matrix).sum()))


def _mask(weight: Array, of: Hessian, pattern: Pattern, search: str) -> Array:
    if search == "sweep":
        return obs.sweep(weight, of.upper(), pattern)[0]
    if search == "eliminate":
        return obs.eliminate(weight, of.inverse(), pattern)
    return obs.alternate(weight, of.matrix, pattern)


def _search(options: Mapping[str, Any]) -> str:
    search = str(options.get("search", "auto"))
    if search not in SEARCHES:
        raise InvalidRecipe(f"search {search!r} is none of {', '.join(SEARCHES)}")
    return search


def _fewer_columns(weight: Array, of: Hessian, units: Mapping[str, Any]) -> Array:
    if "columns" in units:
        columns = np.asarray(units["columns"], np.intp)
    else:
        places = np.arange(weight.shape[1]).reshape(-1, int(units["width"]))
        keep = int(units["keep"])
        found = structured.order([structured.Consumer(weight, of.matrix, places)], keep)
        columns = places[found.keep(keep)].ravel()
    pruned = np.zeros_like(weight)
    pruned[:, columns] = structured.fit(weight, of.matrix, columns)
    return pruned


def answer(task: LayerTask, pruned: Array, of: Hessian) -> LayerResult:
    """With the bias that makes the mean output what it was, where the layer has one."""
    kept = pruned.astype(np.float32)
    lost = task.weight.astype(np.float64) - kept
    bias, shift = None, np.zeros(len(kept))
    if task.bias is not None:
        bias = (task.bias + lost @ task.fit.mean).astype(np.float32)
        shift = task.bias.astype(np.float64) - bias
    zeros = float((kept == 0).mean())
    return LayerResult(
        Dense(kept), bias, None,
        _error(task.weight, lost, shift, task.fit), _error(task.weight, lost, shift, task.held), of.damping,
        (*of.notes, f"{zeros:.1%} of the weights are zero"),
    )  # fmt: skip


def _error(weight: Array, lost: Array, shift: Array, moments: Moments) -> float:
    """E‖(W − Ŵ)x + (b − b̂)‖² / E‖W x‖²."""
    of = weight.astype(np.float64)
    whole = float(np.einsum("ij,ij->", of @ moments.second, of))
    gone = float(np.einsum("ij,ij->", lost @ moments.second, lost) + 2 * shift @ (lost @ moments.mean) + shift @ shift)
    return max(gone, 0.0) / whole if whole > 0 else 0.0
