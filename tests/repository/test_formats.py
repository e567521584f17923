from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crafted
from tidemill.core.errors import RefusedModel
from tidemill.repository.formats import Found, recognise

IR = b'<?xml version="1.0"?>\n<net name="m" version="11"></net>'
ONNX = crafted.identity().SerializeToString()


@pytest.mark.parametrize(
    "name", ["model.onnx", "model", "weights.bin", "model.json", "model.onnxtxt", "model.xml", "a b"]
)
@pytest.mark.parametrize(
    ("content", "kind"),
    [(ONNX, "onnx"), (IR, "openvino"), (b"\xef\xbb\xbf \n" + IR, "openvino"), (b"GGUF\3\0", "gguf")],
)
def test_content_tells_and_not_the_name(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert recognise(path) == Found(kind, path)
    assert recognise(tmp_path) == Found(kind, path)


def test_broken_file_called_onnx_is_one_so_that_it_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    found = recognise(tmp_path)
    assert found is not None
    assert found.format == "onnx"


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"hello", b"<html><net-", b"<?xml version='1.0'?><a/>", b"\x08\x07\x0d."]
)
def test_what_is_no_model_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    assert recognise(path) is None
    assert recognise(tmp_path) is None


@settings(deadline=None)
@given(content=st.binary(max_size=64))
def test_any_bytes_are_judged_without_a_fault(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    found = recognise(path)
    assert found is None or found.path == path


@pytest.mark.parametrize(
    ("name", "file", "kind"),
    [("model.onnx", "model.onnx", "onnx"), ("model.savedmodel", "saved_model.pb", "savedmodel")],
)
def test_model_in_a_folder_of_triton_s_is_found(tmp_path: Path, name: str, file: str, kind: str) -> None:
    inner = tmp_path / name
    inner.mkdir()
    assert recognise(tmp_path) is None
    (inner / file).write_bytes(b"")
    assert recognise(tmp_path) == Found(kind, inner if kind == "savedmodel" else inner / file)
    (tmp_path / "other.xml").write_bytes(IR)
    assert recognise(tmp_path) == Found("openvino", tmp_path / "other.xml")


def test_two_folders_of_triton_s_are_no_model(tmp_path: Path) -> None:
    for name, file in (("model.onnx", "model.onnx"), ("model.savedmodel", "saved_model.pb")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"")
    assert recognise(tmp_path) is None


def test_folder_of_a_saved_model_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "other.onnx").write_bytes(ONNX)
    assert recognise(tmp_path) == recognise(tmp_path / "saved_model.pb") == Found("savedmodel", tmp_path)


def test_files_beside_a_model_are_passed_over(tmp_path: Path) -> None:
    for name in ("labels.txt", "manifest.json", "README.md", "weights.bin"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.onnx").symlink_to(tmp_path / "loop.onnx")
    (tmp_path / "real.onnx").write_bytes(ONNX)
    assert recognise(tmp_path) == Found("onnx", tmp_path / "real.onnx")


def test_of_several_models_the_one_called_model_is_meant(tmp_path: Path) -> None:
    for name in ("model.onnx", "other.onnx"):
        (tmp_path / name).write_bytes(ONNX)
    assert recognise(tmp_path) == Found("onnx", tmp_path / "model.onnx")


@pytest.mark.parametrize("names", [("a.onnx", "b.onnx"), ("model.onnx", "model.gguf")])
def test_several_models_are_refused_by_their_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(ONNX)
    with pytest.raises(RefusedModel) as caught:
        recognise(tmp_path)
    assert all(name in caught.value.message for name in names)


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert recognise(tmp_path) is None
    assert recognise(tmp_path / "gone") is None
