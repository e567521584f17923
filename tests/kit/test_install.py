from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import httpx
import numpy as np
import onnxruntime
import pytest

from tidemill.core.errors import FetchFailed, RefusedModel, UnknownModel
from tidemill.kit import wheels
from tidemill.kit.catalogue import BASIC_PITCH, chosen
from tidemill.kit.install import install, sample

VARIABLES = "variables/variables.data-00000-of-00001"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unplugged(*arguments: Any, **named: Any) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", unplugged)
    monkeypatch.setattr(httpx.Client, "send", unplugged)


@pytest.fixture
def copy(kit: Path, tmp_path: Path) -> Path:
    """A repository of one's own to spoil."""
    return Path(shutil.copytree(kit, tmp_path / "models", ignore=shutil.ignore_patterns("minilm")))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_kit_lies_as_a_repository_of_models(kit: Path) -> None:
    assert {path.name for path in kit.iterdir() if path.is_dir()} == {model.name for model in chosen(None)}
    assert set(content(kit / "half")) == {"1/model.onnx", "manifest.json", "tidemill.toml"}
    assert set(content(kit / "magika")) == {"1/model.onnx", "1/labels.txt", "manifest.json", "tidemill.toml"}
    assert set(content(kit / "basic-pitch-savedmodel")) == {
        "1/saved_model.pb",
        f"1/{VARIABLES}",
        "1/variables/variables.index",
        "manifest.json",
        "tidemill.toml",
    }


def test_manifest_tells_source_licence_and_every_file(kit: Path) -> None:
    manifest = json.loads((kit / "magika/manifest.json").read_text())
    assert manifest["name"] == "magika"
    assert manifest["source"] == "magika==1.0.3"
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["description"]
    for path, told in manifest["files"].items():
        data = (kit / "magika" / path).read_bytes()
        assert told == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


@pytest.mark.usefixtures("offline")
def test_second_install_asks_nobody_and_writes_nothing(kit: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in kit.rglob("*")}
    assert install(None, kit) == [kit / model.name for model in chosen(None)]
    assert {path: path.stat().st_mtime_ns for path in kit.rglob("*")} == before


@pytest.mark.usefixtures("offline", "empty_cache")
def test_half_needs_no_network(tmp_path: Path) -> None:
    assert install(["half"], tmp_path / "deep/models") == [tmp_path / "deep/models/half"]


@pytest.mark.parametrize("spoilt", [f"1/{VARIABLES}", "1/saved_model.pb", "manifest.json"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_missing_or_truncated_file_is_mended(copy: Path, spoilt: str, how: str) -> None:
    home = copy / "basic-pitch-savedmodel"
    before = content(home)
    if how == "missing":
        (home / spoilt).unlink()
    else:
        (home / spoilt).write_bytes(before[spoilt][:100])
    install(["basic-pitch-savedmodel"], copy)
    assert content(home) == before


def test_missing_version_folder_is_mended_and_other_versions_stay(copy: Path) -> None:
    home = copy / "basic-pitch"
    before = content(home)
    (home / "1").rename(home / "2")
    install(["basic-pitch"], copy)
    assert content(home) == before | {"2/model.onnx": before["1/model.onnx"]}


def test_settings_of_the_user_stay(copy: Path) -> None:
    toml = copy / "half/tidemill.toml"
    toml.write_text("[price]\ncall_nanos = 5\n")
    (copy / "half/1/model.onnx").unlink()
    install(["half"], copy)
    assert toml.read_text() == "[price]\ncall_nanos = 5\n"


@pytest.mark.parametrize("file", ["1/model.onnx", "1/other.onnx", "manifest.json"])
def test_another_model_of_the_same_name_is_not_written_over(tmp_path: Path, file: str) -> None:
    mine = tmp_path / "half" / file
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": true}')
    with pytest.raises(RefusedModel, match="half"):
        install(["half"], tmp_path)
    assert content(tmp_path / "half") == {file: b'{"mine": true}'}


def test_unknown_model_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="bert"):
        install(["half", "bert"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchFailed, match="choose another folder"):
        install(["half"], tmp_path / "file")


@pytest.fixture(scope="session")
def wheel() -> bytes:
    """A real wheel of the kit, out of the user's cache."""
    return wheels.wheel_file(BASIC_PITCH).read_bytes()


def test_progress_names_what_is_fetched(
    wheel: bytes, server: Any, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real wheel from a server of our own in place of the index."""
    server.content = wheel
    monkeypatch.setattr(wheels, "locate", lambda wheel: server.url)
    steps: list[tuple[str, int, int | None]] = []
    install(["basic-pitch", "basic-pitch-savedmodel"], tmp_path / "models", lambda *step: steps.append(step))
    assert {label for label, _, _ in steps} == {"fetching basic-pitch==0.4.0"}
    assert steps[-1][1:] == (BASIC_PITCH.size_bytes, BASIC_PITCH.size_bytes)
    assert len(server.asked) == 1
    assert (empty_cache / "wheels" / BASIC_PITCH.filename).exists()


@pytest.mark.usefixtures("empty_cache")
def test_mirror_that_is_a_folder_is_read_in_place(
    wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = tmp_path / "a mirror" / BASIC_PITCH.filename
    mirrored.parent.mkdir()
    mirrored.write_bytes(wheel)
    monkeypatch.setattr(wheels, "locate", lambda wheel: mirrored.as_uri())
    assert wheels.wheel_file(BASIC_PITCH) == mirrored
    mirrored.write_bytes(b"something else")
    with pytest.raises(FetchFailed, match=BASIC_PITCH.sha256):
        wheels.wheel_file(BASIC_PITCH)


@pytest.mark.parametrize(
    "name",
    ["half", "magika", "silero-vad", "basic-pitch", "minilm", "ocr-det", "ocr-cls", "ocr-rec", "co2-forecast"],
)
def test_model_answers_its_sample(kit: Path, name: str) -> None:
    session = onnxruntime.InferenceSession(kit / name / "1/model.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, sample(name))
    assert all(np.isfinite(output).all() for output in outputs)
    if name == "half":
        assert outputs[0].tolist() == [0.5]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_half_takes_any_shape(kit: Path, shape: tuple[int, ...]) -> None:
    session = onnxruntime.InferenceSession(kit / "half/1/model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.full(shape, 3, np.float32)})
    assert output.shape == shape
    assert (output == 1.5).all()
