"""Which layers a method of the whole model is run again without, how often, and what is said where nothing helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidemill.compress import rollback
from tidemill.compress.forms import Dense
from tidemill.compress.method import Outcome
from tidemill.compress.task import LayerResult
from tidemill.core.errors import InvalidRecipe

COUNT = 40
FORM = Dense(np.ones((1, 1), np.float32))


def made(out: frozenset[str], tried: list[int] | None = None) -> Outcome:
    """An outcome whose graph is the number of layers left out; layer n is in error by n."""
    if tried is not None:
        tried.append(len(out))
    layers = {f"{n}": LayerResult(FORM, None, None, float(n), 0.0) for n in range(COUNT) if f"{n}" not in out}
    return Outcome(len(out), layers)


def keeps(graph: Any) -> float:
    return 0.5 + int(graph) / 100


def test_what_keeps_enough_is_left_as_it_is() -> None:
    whole = made(frozenset())
    assert rollback.leaving_out(whole, made, keeps, 0.5) is whole


def test_the_layers_most_in_error_go_first_and_twice_as_many_each_time() -> None:
    tried: list[int] = []
    found = rollback.leaving_out(made(frozenset()), lambda out: made(out, tried), keeps, 0.53)
    assert (tried, found.graph) == ([2, 4], 4)
    assert set(found.layers) == {f"{n}" for n in range(COUNT - 4)}
    assert found.notes == (
        *(f"{n} was left as it is, to keep the metric" for n in (39, 38, 37, 36)), rollback.CHOSEN,
    )  # fmt: skip


def test_tries_have_a_bound_and_the_best_is_given_with_a_note() -> None:
    tried: list[int] = []
    found = rollback.leaving_out(made(frozenset()), lambda out: made(out, tried), keeps, 0.99)
    assert len(tried) == rollback.TRIES_MAX
    assert found.graph == tried[-1]
    assert "keeps 0.99 of the metric; 0.66 at best" in found.notes[-1]


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_a_layer_whose_error_is_unknown_goes_first(error: float) -> None:
    layers = {"a": LayerResult(FORM, None, None, 0.9, 0.9), "b": LayerResult(FORM, None, None, error, 0.0)}
    asked: list[frozenset[str]] = []

    def again(out: frozenset[str]) -> Outcome:
        asked.append(out)
        raise InvalidRecipe("nothing is left")

    found = rollback.leaving_out(Outcome(0, layers), again, keeps, 0.99)
    assert asked == [frozenset("b")]
    assert found.graph == 0
