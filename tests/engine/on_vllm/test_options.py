"""`[vllm]` of a `tidemill.toml` becomes vLLM's own command line, or is refused with what is spelled like it."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.core.errors import RefusedModel
from tidemill.engine.on_vllm.options import with_defaults, words

KNOWN = (
    "--max-model-len",
    "--max-num-seqs",
    "--enforce-eager",
    "--no-enforce-eager",
    "--load-format",
    "--structured-outputs-config",
    "--generation-config",
    "--allowed-origins",
    "--seed",
)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"max-model-len": "32k"}, ["--max-model-len=32k"]),
        ({"max_model_len": -1}, ["--max-model-len=-1"]),
        ({"--max-num-seqs": 8}, ["--max-num-seqs=8"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce-eager": False}, ["--no-enforce-eager"]),
        (
            {"structured-outputs-config": {"backend": "guidance"}},
            ['--structured-outputs-config={"backend": "guidance"}'],
        ),
        ({"allowed-origins": ["a", "b"]}, ["--allowed-origins", "a", "b"]),
        ({"load-format": "runai_streamer"}, ["--load-format=runai_streamer"]),
    ],
)
def test_options_are_written_as_vllm_reads_them(given: dict[str, Any], line: list[str]) -> None:
    assert words(given, KNOWN) == line


def test_unknown_option_is_refused_with_those_that_are_spelled_like_it() -> None:
    with pytest.raises(RefusedModel, match=r"max_model_length: vLLM has no such flag; like it are max-model-len"):
        words({"max_model_length": 1}, KNOWN)
    with pytest.raises(RefusedModel, match=r"no such flag$"):
        words({"zebra": 1}, KNOWN)


@pytest.mark.parametrize("name", ["model", "trust-remote-code", "trust_remote_code", "--download-dir"])
def test_what_is_not_the_operators_is_refused(name: str) -> None:
    with pytest.raises(RefusedModel, match="leave it out"):
        words({name: True}, KNOWN)


@pytest.mark.parametrize("form", ["pt", "auto", "PT", "npcache"])
def test_weights_that_may_be_pickles_are_refused(form: str) -> None:
    with pytest.raises(RefusedModel, match="never pickles"):
        words({"load_format": form}, KNOWN)


def test_what_the_operator_says_comes_before_the_defaults_however_it_is_spelled() -> None:
    made = with_defaults({"max_num_seqs": 8}, {"max-num-seqs": 64, "seed": 0})
    assert words(made, KNOWN) == ["--seed=0", "--max-num-seqs=8"]
