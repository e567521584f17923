"""The kit's GGUF compiled for real: what is served of it, and that it keeps what the engine's own reading rounds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from serving import tidemill
from tidemill.core.generation import Generate, Sampling
from tidemill.core.package import ModelPackage
from tidemill.core.places import cache_dir
from tidemill.core.request import InferenceRequest
from tidemill.core.settings import Settings
from tidemill.engine.generate import load, tiny
from tidemill.engine.generate.exported import quickened
from tidemill.kit.install import install

FAILED = 1
PARIS = ({"role": "user", "content": "What is the capital of France?"},)
TEXT = Path("/usr/share/common-licenses/GPL-3")
TOKENS = "1500"
MADE_S_MAX = 300.0
"""Twenty seconds on a machine that does nothing else."""


@pytest.fixture(scope="module")
def file() -> Path:
    (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
    return home / "1" / "model.gguf"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def told(file: Path, cache: Path) -> dict[str, Any]:
    done = tidemill("compile", file, "--json", TIDEMILL_CACHE_DIR=str(cache), timeout_s=MADE_S_MAX)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def package(file: Path) -> ModelPackage:
    return ModelPackage("m", 1, file, "gguf", 0)


@pytest.mark.slow
async def test_it_is_served_and_the_capital_of_france_is_paris(
    file: Path, cache: Path, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_CACHE_DIR", str(cache))
    assert told["nats"] < 0.02
    made = await load(package(file), Settings(kv_cache_bytes=2**26))
    work = Generate(messages=PARIS, sampling=Sampling(temperature=0.0, max_tokens=20))
    try:
        assert made.child.opening.path == told["path"]
        async with made.run(InferenceRequest("m", 1, work, "r", "c", time.monotonic() + 60)) as pieces:
            said = "".join([delta.text async for piece in pieces for delta in piece.deltas])
    finally:
        await made.close()
    assert said == "The capital of France is Paris."
    assert quickened(package(file), "file") == package(file)
    assert quickened(package(file), "f16") == package(file)


@pytest.mark.slow
def test_it_foretells_a_text_better_than_the_engines_own_reading_of_the_file(
    file: Path, cache: Path, told: dict[str, Any]
) -> None:
    """Goal: the minima of Q4_1, which OpenVINO's 4-bit weights cannot have, are kept. Method: one text, both ways."""

    def nats(weights: str) -> float:
        words = ("perplexity", file, "--text", TEXT, "--tokens-max", TOKENS, "--export-weights", weights, "--json")
        done = tidemill(*words, TIDEMILL_CACHE_DIR=str(cache), timeout_s=MADE_S_MAX)
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout)["nats"])

    assert nats("int8") < nats("file") - 0.1


@pytest.mark.slow
def test_the_second_time_it_is_there(file: Path, cache: Path, told: dict[str, Any]) -> None:
    again = tidemill("compile", file, "--json", TIDEMILL_CACHE_DIR=str(cache), timeout_s=MADE_S_MAX)
    assert (json.loads(again.stdout)["reused"], json.loads(again.stdout)["path"]) == (True, told["path"])


@pytest.mark.parametrize("weights", ["f16", "f32", "file"])
def test_other_weights_are_not_offered(tmp_path: Path, weights: str) -> None:
    tiny.write(tmp_path / "m.gguf", 100)
    done = tidemill("compile", tmp_path / "m.gguf", "--export-weights", weights)
    assert (done.returncode, "int8" in done.stderr) == (FAILED, True), done.stderr


def test_one_without_a_tokenizer_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    tiny.write(tmp_path / "m.gguf", 100)
    done = tidemill("compile", tmp_path / "m.gguf", TIDEMILL_CACHE_DIR=str(tmp_path / "cache"))
    assert (done.returncode, "(compile.refused)" in done.stderr) == (FAILED, True), done.stderr
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]


@pytest.mark.parametrize("data", [b"GGUF", b"GGUF" + b"\0" * 60, b"no model"])
def test_a_broken_file_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    bad, cache = tmp_path / "m.gguf", tmp_path / "cache"
    bad.write_bytes(data)
    done = tidemill("compile", bad, TIDEMILL_CACHE_DIR=str(cache), timeout_s=MADE_S_MAX)
    assert done.returncode == FAILED, done.stderr
    assert "Traceback" not in done.stderr
    assert not [each for each in cache.rglob("*") if each.is_file()]
