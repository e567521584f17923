"""Exports for real: a small model of random weights and the kit's, from Hugging Face's folder to an answer."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

import exporting
from crafted_huggingface import huggingface
from tidemill.core.generation import Generate, Sampling, Tokenise
from tidemill.core.package import ModelPackage
from tidemill.core.request import InferenceRequest
from tidemill.core.settings import Settings
from tidemill.engine import artefact
from tidemill.engine.generate import load

pytestmark = pytest.mark.slow

FAILED, INTERRUPTED = 1, 130


def request(work: Generate | Tokenise) -> InferenceRequest:
    return InferenceRequest("m", 1, work, "r", "c", time.monotonic() + 120)


async def test_the_capital_of_france_is_paris_and_the_tokens_are_the_sources() -> None:
    told = exporting.exported()
    assert told["nats"] < 0.05
    assert told["size_bytes"] < told["source_bytes"] / 3
    made = await load(ModelPackage("m", 1, exporting.source(), "huggingface", 0), Settings(kv_cache_bytes=2**26))
    question = ({"role": "user", "content": "What is the capital of France?"},)
    try:
        async with made.run(
            request(Generate(messages=question, sampling=Sampling(temperature=0.0, max_tokens=20)))
        ) as pieces:
            said = "".join([delta.text async for piece in pieces for delta in piece.deltas])
        async with made.run(request(Tokenise(text="Größte 潮水 🌊 123", special=False))) as pieces:
            tokens = (await anext(pieces)).tensors["tokens"].tolist()
    finally:
        await made.close()
    assert said == "The capital of France is Paris."
    assert tokens == [27302, 7466, 34878, 676, 17097, 138, 123, 177, 125, 129, 15107, 230, 228, 216, 33, 34, 35]


def test_the_second_time_it_is_there_and_other_weights_are_another(tmp_path: Path) -> None:
    variables = {"TIDEMILL_CACHE_DIR": str(tmp_path)}
    first = exporting.compiled(exporting.source(tiny=True), "--json", **variables)
    assert first.returncode == 0, first.stderr
    assert "tracing the graph" in first.stderr
    again = exporting.compiled(exporting.source(tiny=True), "--json", **variables)
    assert "tracing the graph" not in again.stderr
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert (one["reused"], two["reused"], one["path"]) == (False, True, two["path"])
    other = exporting.compiled(exporting.source(tiny=True), "--export-weights", "f32", "--json", **variables)
    assert other.returncode == 0, other.stderr
    three = json.loads(other.stdout)
    assert three["path"] != one["path"]
    assert three["nats"] < 1e-4
    assert three["size_bytes"] > one["size_bytes"]


def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        exporting.command(exporting.source(tiny=True)),
        stderr=subprocess.PIPE, text=True, env=exporting.variables(TIDEMILL_CACHE_DIR=str(tmp_path)),
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if "tracing" in line:
                break
        process.send_signal(signal.SIGINT)
        lines.read()
    assert process.wait(120) == INTERRUPTED
    left = [each for each in (tmp_path / "compiled").rglob("*") if each.is_file() or artefact.FRESH in each.name]
    assert left == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mill", "architectures": ["MillForCausalLM"]}, "MillForCausalLM"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "BertModel"),
        ({}, "cannot be exported"),
    ],
    ids=["unknown", "encoder", "no weights"],
)
def test_what_cannot_be_exported_is_refused(tmp_path: Path, config: dict[str, object], words: str) -> None:
    folder = huggingface(tmp_path / "m", **config)
    done = exporting.compiled(folder, TIDEMILL_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == FAILED, done.stderr
    assert "(compile.refused)" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cache").rglob("artefact.json"))
