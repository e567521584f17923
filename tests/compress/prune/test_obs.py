"""Masks obey their pattern, and what is left never fits worse than cutting alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.hessian import hessian
from tidemill.compress.prune import obs
from tidemill.compress.prune.obs import Pattern
from tidemill.core.tensor import Array

from ..pruning import task

patterns = st.one_of(
    st.floats(0, 0.95).map(Pattern),
    st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 3), (2, 7)]).map(lambda nm: Pattern(kept=nm[0], group=nm[1])),
)
sizes = st.tuples(st.integers(1, 7), st.integers(2, 21))
searches = st.sampled_from(["sweep", "alternate", "eliminate"])


def masked(search: str, weight: Array, of: object, pattern: Pattern) -> Array:
    if search == "sweep":
        return obs.sweep(weight, of.upper(), pattern, block=8)[0]
    if search == "eliminate":
        return obs.eliminate(weight, of.inverse(), pattern)
    return obs.alternate(weight, of.matrix, pattern, rounds=12)


def obeys(mask: Array, pattern: Pattern) -> bool:
    if not pattern.group:
        return True
    starts = range(0, mask.shape[1], pattern.group)
    return all(
        (mask[:, start : start + pattern.group].sum(axis=1) == min(pattern.kept, mask.shape[1] - start)).all()
        for start in starts
    )


@settings(deadline=None, max_examples=60)
@given(sizes, patterns, searches, st.integers(0, 99))
def test_masks_obey_their_pattern_and_refitting_never_loses_more_than_cutting(
    size: tuple[int, int], pattern: Pattern, search: str, seed: int
) -> None:
    asked = task(*size, seed=seed)
    of = hessian(asked.fit)
    weight = asked.weight.astype(np.float64)
    mask = masked(search, weight, of, pattern)
    assert obeys(mask, pattern)
    if not pattern.group and search != "sweep":  # a sweep rounds the share in every block
        assert mask.sum() == weight.size - round(pattern.sparsity * weight.size)
    cut = np.where(mask, weight, 0.0)
    refitted = obs.refit(weight, mask, of.matrix)
    assert (refitted[~mask] == 0).all()
    before, after = obs.loss(weight, cut, of.matrix), obs.loss(weight, refitted, of.matrix)
    assert (after <= before * (1 + 1e-9) + 1e-12).all()
    assert (masked(search, weight, of, pattern) == mask).all(), "the same question has the same answer"


@settings(deadline=None, max_examples=30)
@given(sizes, st.floats(0.1, 0.9), st.integers(0, 99))
def test_a_sweeps_own_update_is_never_better_than_the_refit(size: tuple[int, int], share: float, seed: int) -> None:
    asked = task(*size, seed=seed)
    of = hessian(asked.fit)
    weight = asked.weight.astype(np.float64)
    mask, swept = obs.sweep(weight, of.upper(), Pattern(share))
    refitted = obs.refit(weight, mask, of.matrix)
    assert (obs.loss(weight, refitted, of.matrix) <= obs.loss(weight, swept, of.matrix) + 1e-9).all()


def test_conjugate_gradients_come_to_the_exact_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = task(9, 40)
    of = hessian(asked.fit)
    mask = np.random.default_rng(0).random(asked.weight.shape) < 0.5
    mask[3] = False
    exact = obs.refit(asked.weight, mask, of.matrix)
    monkeypatch.setattr(obs, "EXACT_MULTIPLICATIONS_MAX", 0)
    assert np.allclose(obs.refit(asked.weight, mask, of.matrix), exact, atol=1e-5)


def test_saliency_is_what_dropping_one_weight_costs() -> None:
    asked = task(1, 8)
    of = hessian(asked.fit)
    weight = asked.weight.astype(np.float64)
    told = 2 * obs.saliency(weight, of.inverse())[0]
    for at in range(8):
        mask = np.ones((1, 8), np.bool_)
        mask[0, at] = False
        assert np.isclose(obs.loss(weight, obs.refit(weight, mask, of.matrix), of.matrix)[0], told[at])


def test_searches_come_near_the_best_mask_there_is() -> None:
    """Of all 70 supports of a row of 8, by trying them."""
    worse = {"alternate": [], "eliminate": [], "sweep": []}
    for seed in range(12):
        asked = task(1, 8, seed=seed)
        of = hessian(asked.fit)
        weight = asked.weight.astype(np.float64)
        best = np.inf
        for kept in itertools.combinations(range(8), 4):
            mask = np.zeros((1, 8), np.bool_)
            mask[0, list(kept)] = True
            best = min(best, obs.loss(weight, obs.refit(weight, mask, of.matrix), of.matrix)[0])
        for search, found in worse.items():
            mask = masked(search, weight, of, Pattern(0.5))
            found.append(obs.loss(weight, obs.refit(weight, mask, of.matrix), of.matrix)[0] / best)
    assert np.median(worse["eliminate"]) < 1.5
    assert np.median(worse["alternate"]) < 2.0


def test_alternating_finds_better_masks_than_one_sweep() -> None:
    asked = task(48, 64, count=500)
    of = hessian(asked.fit)
    weight = asked.weight.astype(np.float64)
    losses = [
        obs.loss(weight, obs.refit(weight, mask, of.matrix), of.matrix).sum()
        for mask in (obs.alternate(weight, of.matrix, Pattern(0.5)), obs.sweep(weight, of.upper(), Pattern(0.5))[0])
    ]
    assert losses[0] < losses[1]


def test_a_row_of_zeros_stays_one() -> None:
    asked = task(4, 8)
    weight = asked.weight.astype(np.float64)
    weight[1] = 0
    of = hessian(asked.fit)
    for search in ("sweep", "alternate", "eliminate"):
        mask = masked(search, weight, of, Pattern(kept=2, group=4))
        assert obeys(mask, Pattern(kept=2, group=4))
        assert not obs.refit(weight, mask, of.matrix)[1].any()
