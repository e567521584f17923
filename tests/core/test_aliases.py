from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.aliases import aliases_of
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import resolve

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)


@given(st.dictionaries(NAMES, NAMES, max_size=5))
def test_what_is_written_is_read(wanted: dict[str, str]) -> None:
    wanted = {alias: model for alias, model in wanted.items() if model not in wanted}
    wanted = {alias: model for alias, model in wanted.items() if model not in wanted}
    assert aliases_of(" , ".join(f"{alias} = {model}" for alias, model in wanted.items())) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a", "is no alias"), ("a=b,", "is no alias"), ("a=b=c", "is no alias"), ("a/b=c", "is no alias"),
        ("=b", "is no alias"), ("a=", "is no alias"), ("a=b,a=c", "stands for 'b' and for 'c'"),
        ("a=b,c=a", "which is an alias"), ("a=a", "which is an alias"),
    ],
)  # fmt: skip
def test_what_is_no_alias_is_refused_with_its_words(text: str, told: str) -> None:
    with pytest.raises(InvalidSetting, match=told):
        resolve({"aliases": text}, {}, {})
