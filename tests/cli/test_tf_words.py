from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.cli import tf_words
from tidemill.core.errors import InvalidSetting

PRINTED = ["--rest_api_port=9000", "--model_name=my_model", "--model_base_path=/models"]


@pytest.mark.parametrize(
    "line",
    [
        PRINTED,
        ["-rest_api_port=9000", "-model_name=my_model", "-model_base_path=/models"],
        ["--rest_api_port", "9000", "--model_name", "my_model", "--model_base_path", "/models"],
        [*PRINTED, "--enable_batching"],
        ["--enable_batching", "true", *PRINTED],
    ],
    ids=str,
)
def test_the_start_line_is_understood_in_each_of_its_spellings(line: list[str]) -> None:
    assert tf_words.is_start_line(line)
    read = tf_words.read(line)
    assert read.models == ["my_model=/models"]
    assert read.flags["rest_api_port"] == 9000
    assert read.flags["port"] == tf_words.GRPC_PORT
    assert read.flags["no_auth"] is True


def test_without_a_name_the_model_is_called_default() -> None:
    assert tf_words.read(["--model_base_path=/m"]).models == ["default=/m"]


def test_own_words_of_serve_are_no_start_line() -> None:
    assert not tf_words.is_start_line(["half", "--http-port", "8000", "--rest-port"])


def test_flags_without_effect_are_told_with_the_reason() -> None:
    (note,) = tf_words.read([*PRINTED, "--enable_batching"]).notes
    assert note.startswith("--enable_batching has no effect")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (["--model_name=x"], "--model_base_path is missing"),
        ([*PRINTED, "--model_base_pat=/x"], "did you mean --model_base_path"),
        ([*PRINTED, "--port=many"], "--port=many: expected a whole number"),
        ([*PRINTED, "--port"], "--port wants a value"),
        ([*PRINTED, "half"], "'half' is no flag"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_start_line_is_told(line: list[str], match: str) -> None:
    with pytest.raises(InvalidSetting, match=match):
        tf_words.read(line)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(InvalidSetting):
        assert tf_words.read(words).models
