from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.engine.company import LOOKS_EACH, WORTH, Company


def batches(company: Company, requests: int, count: int) -> int:
    """`count` batches which `requests` join where they are held; how many were held."""
    held = 0
    for _ in range(count):
        if company.awaited():
            held += 1
            company.held(requests)
    return held


def test_where_nobody_joins_few_batches_are_held() -> None:
    company = Company()
    batches(company, 1, 10)
    assert batches(company, 1, 10 * LOOKS_EACH) == 10


@given(st.integers(int(WORTH), 1000))
def test_where_others_join_every_batch_is_held(requests: int) -> None:
    assert batches(Company(), requests, 50) == 50


def test_it_sees_when_many_come_after_one_came_alone() -> None:
    company = Company()
    batches(company, 1, 1000)
    batches(company, 32, LOOKS_EACH)
    assert batches(company, 32, 10) == 10
