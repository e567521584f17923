"""What `tidemill compile` refuses before anything heavy, and what `serve` says of what was not compiled."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from crafted_huggingface import genai, huggingface
from serving import environment, tidemill
from tidemill.compile import export
from tidemill.core.errors import NotCompiled, RefusedExport
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.engine import artefact
from tidemill.engine.artefact import Artefact
from tidemill.engine.generate import load
from tidemill.engine.generate.exported import exported
from tidemill.repository import huggingface as read

FAILED, MISUSE = 1, 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def package(folder: Path) -> ModelPackage:
    return ModelPackage("m", 1, folder, "huggingface", 0)


def kept(folder: Path, weights: str, made_at: float = 1.0) -> Path:
    """As if it had been exported."""
    options = {"weights": weights}
    source, key = artefact.digest(read.files(folder)), artefact.key(options, {"at": str(made_at)})
    place = artefact.place() / source / key
    place.mkdir(parents=True)
    (place / "graph").write_bytes(b"1")
    made = Artefact(source, key, "genai", options, {}, made_at, {"graph": 1})
    (place / artefact.MANIFEST).write_bytes(json.dumps(_plain(made)).encode())
    return place


def _plain(made: Artefact) -> Any:
    return {name: getattr(made, name) for name in made.__struct_fields__}


def test_one_that_was_not_compiled_names_the_command_that_does(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "a model")
    with pytest.raises(NotCompiled) as told:
        asyncio.run(load(package(folder), Settings()))
    assert f"tidemill compile {shlex.quote(str(folder))}" in told.value.message
    with pytest.raises(NotCompiled, match="--export-weights f16"):
        exported(package(folder), "f16")


def test_what_was_compiled_is_found_the_newest_of_the_weights_that_are_asked_for(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "m")
    kept(folder, "int8")
    newest = kept(folder, "int8", 2.0)
    half = kept(folder, "f16", 3.0)
    assert exported(package(folder), "int8").path == newest
    found = exported(package(folder), "f16")
    assert (found.path, found.format, found.name) == (half, "genai", "m")
    with pytest.raises(NotCompiled, match="in f16, int8 it is there"):
        exported(package(folder), "f32")


def test_another_byte_anywhere_is_another_model_but_not_in_what_tidemill_wrote(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "m")
    kept(folder, "int8")
    for name in ("manifest.json", "README.md", "tidemill.toml"):
        (folder / name).write_text("{}")
    exported(package(folder), "int8")
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(NotCompiled):
        exported(package(folder), "int8")


@pytest.mark.parametrize(
    ("config", "words"),
    [({"quantization_config": {"quant_method": "gptq"}}, "gptq"), ({"model_type": None}, "model_type")],
)
def test_a_configuration_that_cannot_be_exported_is_refused_at_once(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(RefusedExport, match=words):
        export.check(read.read(huggingface(tmp_path, **config)))


def test_a_model_without_a_tokenizer_is_refused_at_once(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    told = tidemill("compile", folder)
    assert (told.returncode, "(compile.refused)" in told.stderr) == (FAILED, True), told.stderr
    assert "tokenizer.json" in told.stderr


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    told = tidemill("compile", folder)
    assert (told.returncode, "(model.refused)" in told.stderr) == (FAILED, True), told.stderr
    assert "pickle" in told.stderr


def test_what_needs_no_compiling_is_told_so(tmp_path: Path, repository: Path) -> None:
    told = tidemill("compile", "half", "--models", repository)
    assert (told.returncode, "(request.not_offered)" in told.stderr) == (FAILED, True), told.stderr
    told = tidemill("compile", genai(tmp_path / "ir"))
    assert told.returncode == FAILED
    assert "tidemill serve" in told.stderr


def test_without_its_extra_it_names_it(tmp_path: Path) -> None:
    if not [each for each in export.NEEDED if not export.find_spec(each)]:
        pytest.skip("it is installed here")
    told = tidemill("compile", huggingface(tmp_path / "m"), **environment())
    assert (told.returncode, "tidemill[llm-export]" in told.stderr) == (MISUSE, True), told.stderr


def test_serving_one_that_was_not_compiled_says_how(tmp_path: Path) -> None:
    folder = huggingface(tmp_path / "m")
    text = tmp_path / "text"
    text.write_text("The mill by the river")
    told = tidemill("perplexity", folder, "--text", text)
    assert told.returncode == FAILED
    assert f"tidemill compile {folder} (model.not_compiled)" in told.stderr
