from __future__ import annotations

import re
from collections import Counter

import pytest

from tidemill.core.errors import CallerError, ServiceError, TidemillError, leaves
from tidemill.doors.problems import PROBLEMS, grpc_status, http_status

OURS = [each for each in leaves() if each.__module__.startswith("tidemill.")]
LEAVES = [each for each in OURS if not each.__subclasses__()]


def test_every_leaf_has_a_code_of_its_own() -> None:
    assert [code for code, times in Counter(each.code for each in LEAVES).items() if times > 1] == []


def test_no_leaf_takes_the_code_of_a_branch() -> None:
    assert {each.code for each in LEAVES}.isdisjoint({TidemillError.code, CallerError.code, ServiceError.code})


@pytest.mark.parametrize("each", OURS)
def test_every_code_has_a_status_on_both_wires(each: type[TidemillError]) -> None:
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", each.code)
    status = http_status(each("what happened"))
    assert status in PROBLEMS[each.code]
    assert grpc_status(each("what happened")).value[0] != 0
    assert (400 <= status < 500) == issubclass(each, CallerError) or each.code in ("install.missing", "key.forbidden")


def test_every_code_in_the_table_exists() -> None:
    assert set(PROBLEMS) == {each.code for each in OURS}


@pytest.mark.parametrize("each", OURS)
def test_error_carries_its_message_and_when_to_come_back(each: type[TidemillError]) -> None:
    error = each("what happened", retry_after_s=2.0, param="messages[0]")
    assert str(error) == error.message == "what happened"
    assert error.retry_after_s == 2.0
    assert error.param == "messages[0]"
