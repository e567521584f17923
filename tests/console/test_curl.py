"""The call that the sheet offers."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.console.curl import call, predict
from tidemill.console.snapshot import Model
from tidemill.core.tensor import DTYPES, TensorSpec

SPECS = st.lists(
    st.builds(
        TensorSpec,
        name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
        datatype=st.sampled_from(sorted(DTYPES)),
        shape=st.none() | st.lists(st.integers(1, 4) | st.just(-1), max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=3,
)


def body(line: str) -> dict[str, Any]:
    """What the shell would send."""
    words = shlex.split(line)
    if words[0] == "curl":
        return json.loads(words[words.index("-d") + 1])  # type: ignore[no-any-return]
    program = words[2]
    return json.loads(subprocess.check_output([sys.executable, "-c", program]))  # type: ignore[no-any-return]


def check(sent: dict[str, Any], specs: list[TensorSpec]) -> None:
    assert [each["name"] for each in sent["inputs"]] == [spec.name for spec in specs]
    for each, spec in zip(sent["inputs"], specs, strict=True):
        assert each["datatype"] == spec.datatype
        assert spec.admits(tuple(each["shape"]))
        assert len(each["data"]) == math.prod(each["shape"])


@given(SPECS.filter(lambda specs: sum(math.prod(abs(n) for n in spec.shape or ()) for spec in specs) <= 64))
def test_a_small_call_fits_the_signature(specs: list[TensorSpec]) -> None:
    check(body(call(Model("m", 1, "AVAILABLE", inputs=tuple(specs)), "http://h:1", False)), specs)


@settings(max_examples=5)
@given(SPECS)
def test_a_large_call_fits_the_signature(specs: list[TensorSpec]) -> None:
    specs = [*specs, TensorSpec("large", "BOOL", (-1, 2048)), TensorSpec("text", "BYTES", (100,))]
    line = call(Model("m", 1, "AVAILABLE", inputs=tuple(specs)), "http://h:1", False)
    assert len(line) < 2000
    check(body(line), specs)


@pytest.mark.parametrize(("auth", "count"), [(True, 1), (False, 0)])
def test_a_key_comes_from_the_environment(auth: bool, count: int) -> None:
    line = call(Model("m", 1, "AVAILABLE", inputs=(TensorSpec("x", "FP32", (1,)),)), "http://h:1/", auth)
    assert line.count('"Authorization: Bearer $TIDEMILL_KEY"') == count
    assert "http://h:1/v2/models/m/versions/1/infer" in line


def test_a_name_cannot_leave_its_word() -> None:
    hostile = "a'; rm -rf ~ #/../x"
    words = shlex.split(call(Model(hostile, 2, "AVAILABLE"), "http://h:1", False))
    assert words[2] == "http://h:1/v2/models/a%27%3B%20rm%20-rf%20~%20%23%2F..%2Fx/versions/2/infer"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_what_was_tried_is_sent_again_as_it_was(text: str) -> None:
    words = shlex.split(predict("m", None, "http://h:1", False, "text/plain; charset=utf-8", text.encode()))
    assert words[2:] == [
        "http://h:1/v1/models/m:predict", "-H", "Content-Type: text/plain; charset=utf-8", "--data-raw", text
    ]  # fmt: skip


def test_what_does_not_fit_a_line_is_named_as_a_file() -> None:
    line = predict("a b", 2, "http://h:1/", True, "image/png", b"\x89PNG", "my picture.png")
    assert shlex.split(line) == [
        "curl", "-sS", "http://h:1/v1/models/a%20b/versions/2:predict", "-H", "Content-Type: image/png", "-H",
        "Authorization: Bearer $TIDEMILL_KEY", "--data-binary", "@my picture.png",
    ]  # fmt: skip
    assert "--data-binary @FILE" in predict("m", None, "http://h:1", False, "text/plain", b"x" * 5000)
