"""What vLLM brought becomes deltas with the tokens' logprobs in their places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tidemill.core.errors import EngineFailed
from tidemill.core.generation import Delta
from tidemill.engine.on_vllm.telling import deltas


@dataclass
class Likely:
    logprob: float
    rank: int
    decoded_token: str | None


@dataclass
class Output:
    """The part of vLLM's `CompletionOutput` that is read."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Likely]] | None = None
    finish_reason: str | None = None
    index: int = 0


PLACE = {7: Likely(-3.0, 9, "c"), 5: Likely(-0.5, 1, "a"), 6: Likely(-1.0, 2, None)}


def told(*outputs: Any, others: int | None = None) -> list[Delta]:
    return list(deltas(outputs, others))


def test_a_step_without_words_and_end_tells_nothing() -> None:
    assert told(Output()) == []


def test_end_without_words_is_told() -> None:
    assert told(Output(finish_reason="length", index=2)) == [Delta(2, "", finish="length")]


def test_chosen_token_is_told_and_the_likeliest_in_their_order() -> None:
    (delta,) = told(Output("c", [7], [PLACE]), others=2)
    assert delta.logprobs == (-3.0,)
    assert delta.spelled == ("c",)
    assert delta.top == (((5, "a", -0.5), (6, "", -1.0)),)


def test_no_others_are_told_where_none_were_asked_for() -> None:
    (delta,) = told(Output("c", [7], [PLACE]), others=0)
    assert delta.logprobs == (-3.0,)
    assert delta.top == ()


def test_no_logprobs_are_told_where_none_were_asked_for() -> None:
    assert told(Output("c", [7], [PLACE])) == [Delta(0, "c", (7,))]


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_what_vllm_gave_up_is_an_error(reason: str) -> None:
    with pytest.raises(EngineFailed, match=reason):
        told(Output("half", [1], finish_reason=reason))
