from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.compress.prune.exchange import Table, exchange


def table(seed: int, layers: int = 3, levels: int = 4) -> Table:
    chance = np.random.default_rng(seed)
    losses = np.cumsum(np.cumsum(chance.random((layers, levels)), axis=1), axis=1) - 1
    losses -= losses[:, :1]
    size = chance.integers(1, 4, layers)[:, None] * 12.0
    shares = np.arange(levels) / levels
    return Table(losses, size * (1 - shares), size * (1 - shares) ** 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1.0), st.floats(0.0, 0.5))
def test_supports_fit_the_room_and_keep_their_mass(seed: int, share: float, mass: float) -> None:
    of = table(seed)
    room = share * of.sizes[:, 0].sum()
    starts = [np.array(each) for each in ((0, 0, 0), (3, 0, 1))]
    found = exchange(of, starts, room, mass, 4, 100)
    assert len(found) <= 4
    for levels in found:
        assert of.of(of.sizes, levels) <= room
        assert of.mass(levels) > mass
    losses = [of.of(of.losses, levels) for levels in found]
    assert losses == sorted(losses)


def test_equal_layers_end_at_the_least_loss() -> None:
    of = Table(np.array([[0.0, 1.0, 4.0], [0.0, 2.0, 8.0]]), np.array([[4.0, 2.0, 0.0]] * 2), np.ones((2, 3)))
    (best, *_) = exchange(of, [np.array([0, 2])], 4.0, 0.0, 3, 50)
    every = [np.array(each) for each in itertools.product(range(3), repeat=2)]
    least = min(of.of(of.losses, each) for each in every if of.of(of.sizes, each) <= 4.0)
    assert of.of(of.losses, best) == least
