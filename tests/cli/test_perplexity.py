"""`tidemill perplexity`: what it refuses, and what it finds of a real model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from serving import environment, tidemill
from tidemill.core.places import cache_dir
from tidemill.kit.install import install

DONE, FAILED, MISUSE = 0, 1, 2
TEXT = Path("/usr/share/common-licenses/GPL-3")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
    return home


def written(folder: Path, data: bytes) -> Path:
    file = folder / "text.txt"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no text"),
        (b" \n\t ", "holds no text"),
        (b"The mill\xff turned", "byte 8 is 0xff"),
        (b"x" * 2000, "--text-bytes-max"),
    ],
)
def test_a_text_that_is_none_is_refused(tmp_path: Path, repository: Path, data: bytes, words: str) -> None:
    file = written(tmp_path, data)
    told = tidemill("perplexity", "half", "--text", file, "--models", repository, "--text-bytes-max", "1000")
    assert told.returncode == FAILED
    assert words in told.stderr
    assert "(input.value)" in told.stderr


def test_a_model_that_speaks_not_is_refused(tmp_path: Path, repository: Path) -> None:
    told = tidemill("perplexity", "half", "--text", written(tmp_path, b"The mill"), "--models", repository)
    assert told.returncode == FAILED
    assert "(request.not_offered)" in told.stderr


@pytest.mark.parametrize(
    "words", [("--window", "1"), ("--stride", "0"), ("--tokens-max", "1"), ("--text", "no/such/file"), ()]
)
def test_misuse_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    text = () if not words or "--text" in words else ("--text", written(tmp_path, b"The mill"))
    assert tidemill("perplexity", "half", *text, *words).returncode == MISUSE


@pytest.mark.slow
def test_perplexity_of_a_real_model(tmp_path: Path, smollm2: Path) -> None:
    """Goal: the number is what its definition says. Method: windows that see more before each token tell less nats, and
    the first tokens of one window are those of a run over these alone."""

    def found(*words: str) -> dict[str, float]:
        told = tidemill("perplexity", smollm2, "--text", TEXT, "--json", *words)
        assert told.returncode == DONE, told.stderr
        return json.loads(told.stdout)  # type: ignore[no-any-return]

    whole = found("--tokens-max", "400")
    assert (whole["tokens"], whole["scored"], whole["windows"]) == (400, 399, 1)
    assert whole["perplexity"] == pytest.approx(math.exp(whole["nats"]))
    assert 10 < whole["perplexity"] < 40
    short = found("--tokens-max", "400", "--window", "64", "--stride", "63")
    assert short["scored"] == 399
    assert short["nats"] > whole["nats"] + 0.1


@pytest.mark.slow
def test_text_comes_by_a_pipe_too_and_one_that_is_too_short_is_refused(smollm2: Path) -> None:
    def piped(text: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "tidemill", "perplexity", str(smollm2), "--text", "-", *words]
        return subprocess.run(command, input=text, capture_output=True, check=False, timeout=120, env=environment())

    said = piped(b"The mill by the river turned and turned.")
    assert said.returncode == DONE, said.stderr
    assert b"perplexity" in said.stdout
    assert b"scored" in said.stdout
    refused = piped(b"a")
    assert refused.returncode == FAILED
    assert b"(input.value)" in refused.stderr
    too_wide = piped(b"The mill by the river", "--window", "1000000")
    assert too_wide.returncode == FAILED
    assert b"(input.value)" in too_wide.stderr
