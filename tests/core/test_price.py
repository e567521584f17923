from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.cli.common import units
from tidemill.console import format as form
from tidemill.core.price import CALL_NANOS_MAX, TOKEN_NANOS_MAX, Price, Tariff, tariff
from tidemill.core.request import Usage

nanos = st.integers(0, TOKEN_NANOS_MAX)
tariffs = st.builds(Tariff, st.integers(0, CALL_NANOS_MAX), nanos, nanos, nanos)
tokens = st.integers(0, 10**6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt = draw(tokens)
    return Usage(1, draw(st.integers(1, 64)), prompt, draw(tokens), draw(st.integers(0, prompt)))


@given(tariffs, usages())
def test_every_token_is_paid_once_at_the_price_of_its_kind(tariff: Tariff, usage: Usage) -> None:
    by_hand = tariff.call_nanos
    for count, price in (
        (usage.prompt_tokens - usage.cached_tokens, tariff.prompt_token_nanos),
        (usage.cached_tokens, tariff.cached_token_nanos),
        (usage.completion_tokens, tariff.completion_token_nanos),
    ):
        by_hand += count * price
    assert tariff.nanos(usage) == by_hand


@given(tariffs, usages(), usages())
def test_two_answers_cost_what_their_tokens_cost_together(tariff: Tariff, one: Usage, two: Usage) -> None:
    both = Usage(
        2,
        one.rows + two.rows,
        one.prompt_tokens + two.prompt_tokens,
        one.completion_tokens + two.completion_tokens,
        one.cached_tokens + two.cached_tokens,
    )
    assert tariff.nanos(one) + tariff.nanos(two) == tariff.nanos(both)


@given(tariffs, usages(), st.integers(0, 100))
def test_a_line_of_a_batch_costs_its_share_and_never_less(tariff: Tariff, usage: Usage, percent: int) -> None:
    shared = msgspec.structs.replace(tariff, batch_percent=percent)
    whole = tariff.nanos(usage)
    assert tariff.nanos(usage, batch=True) == whole == shared.nanos(usage)
    assert whole * percent <= shared.nanos(usage, batch=True) * 100 < whole * percent + 100


@given(tariffs)
def test_a_million_tokens_each_way_at_any_price_fit_a_charge(tariff: Tariff) -> None:
    assert tariff.nanos(Usage(prompt_tokens=10**6, completion_tokens=10**6)) < 2**63


@given(tariffs, usages(), tokens)
def test_more_cached_tokens_than_the_prompt_has_are_not_believed(tariff: Tariff, usage: Usage, more: int) -> None:
    told = msgspec.structs.replace(usage, cached_tokens=usage.prompt_tokens + more)
    most = msgspec.structs.replace(usage, cached_tokens=usage.prompt_tokens)
    assert tariff.nanos(told) == tariff.nanos(most) >= 0


def test_the_model_has_the_first_word_and_the_service_the_second() -> None:
    service = Price(7, 20, 30)
    assert tariff(Price(), service) == Tariff(7, 20, 30, 20)
    assert tariff(Price(call_nanos=0, completion_token_nanos=0), service) == Tariff(0, 20, 0, 20)
    assert tariff(Price(), Price(7)) == Tariff(7, 0, 0, 0)


def test_cached_tokens_cost_what_the_prompts_others_do_unless_somebody_says_otherwise() -> None:
    service = Price(0, 20, 0, 5)
    assert tariff(Price(), service).cached_token_nanos == 5
    assert tariff(Price(prompt_token_nanos=100), service).cached_token_nanos == 100
    assert tariff(Price(prompt_token_nanos=100, cached_token_nanos=0), service).cached_token_nanos == 0


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        (Tariff(1_000_000), "0.001 a call"),
        (Tariff(), "0 a call"),
        (Tariff(0, 150, 600, 150), "0.15 a million prompt tokens, 0.6 a million completion tokens"),
        (Tariff(5, 150, 0, 75), "0.000000005 a call, 0.15 a million prompt tokens, 0.075 a million cached ones"),
        (Tariff(0, 150, 0, 0), "0.15 a million prompt tokens, 0 a million cached ones"),
    ],
)
def test_prices_are_told_by_the_million(prices: Tariff, told: str) -> None:
    assert prices.words(units) == told


def test_a_narrow_place_says_that_tokens_cost_something() -> None:
    told = [form.price(each) for each in (Tariff(10**6), Tariff(10**6, 1), Tariff(0, 0, 1))]
    assert told == ["0.001", "0.001 + tokens", "by the token"]
