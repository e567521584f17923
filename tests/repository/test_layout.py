from __future__ import annotations

from pathlib import Path

import pytest

import crafted
from crafted import save
from tidemill.core.errors import RefusedModel, UnknownModel
from tidemill.repository import layout, model_config

BAD_NAMES = ["", ".hidden", "..", "a/b", "a b", "ü", "-x", "a" * 129, "a\n", "%2e", "a:b", "a@1"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for version in (2, 10, 1):
        save(folder / "half" / str(version), crafted.identity())
    save(folder / "bare", crafted.identity())
    (folder / "empty").mkdir()
    (folder / "file.onnx").write_bytes(b"")
    save(folder / "a b" / "1", crafted.identity())
    save(folder / ".hidden" / "1", crafted.identity())
    return folder


def test_names_are_folders_with_a_version_or_a_model(repository: Path) -> None:
    assert layout.names(repository) == ["bare", "half"]
    assert layout.names(repository / "gone") == []


def test_broken_model_is_listed_so_that_its_refusal_is_seen(repository: Path) -> None:
    (repository / "broken").mkdir()
    (repository / "broken" / "tidemill.toml").write_text("colour = 'red'")
    (repository / "two").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (repository / "two" / name).write_bytes(b"")
    assert layout.names(repository) == ["bare", "broken", "half", "two"]


def test_versions_are_numbers_in_their_order(repository: Path) -> None:
    for other in ("v3", "-1", "1.5", "٣", "9" * 19, "latest", ""):
        (repository / "half" / other).mkdir(exist_ok=True)
    (repository / "half" / "11").write_text("a file")
    assert list(layout.versions(repository / "half")) == [1, 2, 10]


def test_number_written_twice_is_always_the_plain_one(repository: Path) -> None:
    for name in ("001", "01"):
        save(repository / "half" / name, crafted.identity())
    assert layout.versions(repository / "half")[1].name == "1"


def test_folder_that_is_a_model_is_version_1(repository: Path) -> None:
    assert layout.versions(repository / "bare") == {1: repository / "bare"}
    assert layout.versions(repository / "empty") == {}


def test_name_path_version_and_file_are_all_understood(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert list(layout.locate(repository, "half")[1]) == [1, 2, 10]
    assert layout.locate(elsewhere, str(repository / "half"))[0] == "half"
    assert layout.locate(elsewhere, str(repository / "half" / "2")) == ("half", {2: repository / "half" / "2"})
    file = repository / "half" / "2" / "model.onnx"
    assert layout.locate(elsewhere, str(file)) == ("model", {1: file})
    assert layout.locate(elsewhere, str(repository / "bare") + "/") == ("bare", {1: repository / "bare"})


def test_path_is_told_from_where_one_stands(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "half")
    gone = repository / "gone"
    assert layout.locate(gone, ".")[0] == "half"
    assert layout.locate(gone, "2")[0] == "half"
    assert layout.locate(gone, "../bare")[0] == "bare"


def test_saved_model_is_called_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    assert layout.locate(tmp_path / "x", str(folder / "saved_model.pb"))[0] == "flowers"


@pytest.mark.parametrize(
    "model", ["gone", "", "~no-such-user/m", "x" * 300, "nul\0", "/gone", "half/3", "../half", "café"]
)
def test_what_is_nowhere_is_unknown(
    repository: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    monkeypatch.chdir(tmp_path / "w")
    with pytest.raises(UnknownModel):
        layout.locate(repository, model)


def test_unknown_name_tells_the_known_ones(repository: Path) -> None:
    with pytest.raises(UnknownModel, match="bare, half"):
        layout.locate(repository, "haalf")


def test_folder_without_a_model_is_not_served_in_silence(repository: Path) -> None:
    for model in ("empty", str(repository / "empty")):
        with pytest.raises(UnknownModel, match="holds no model"):
            layout.locate(repository, model)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_stand_in_an_address_are_refused(name: str) -> None:
    with pytest.raises(RefusedModel, match="no name for a model"):
        layout.checked_name(name, Path("x"))


@pytest.mark.parametrize("name", ["a", "A-1.b_c", "0", "a" * 128, "a..b"])
def test_plain_names_are_names(name: str) -> None:
    assert layout.checked_name(name, Path("x")) == name


@pytest.mark.parametrize("name", ["a b.onnx", ".onnx", "ü.onnx"])
def test_file_with_an_odd_name_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, crafted.identity(), name)
    with pytest.raises(RefusedModel, match="no name"):
        layout.locate(tmp_path / "x", str(path))


def test_package_tells_what_lies_there(repository: Path) -> None:
    (repository / "half" / "manifest.json").write_text('{"source": "a wheel"}')
    found = layout.package("half", 2, repository / "half" / "2")
    assert (found.name, found.version, found.format, found.source) == ("half", 2, "onnx", "a wheel")
    assert found.path == repository / "half" / "2" / "model.onnx"
    assert found.size_bytes == found.path.stat().st_size
    assert found.signature is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'{"source": "\xff"}', b"[" * 100_000, b"\xff"])
def test_broken_manifest_costs_only_its_source(repository: Path, content: bytes) -> None:
    (repository / "half" / "manifest.json").write_bytes(content)
    assert layout.package("half", 2, repository / "half" / "2").source == ""


def test_config_of_the_version_beats_the_model_s(repository: Path) -> None:
    half = repository / "half"
    (half / "tidemill.toml").write_text("[price]\ncall_nanos = 5")
    (half / "2" / "tidemill.toml").write_text("[batching]\nmax_batch = 7")
    assert layout.package("half", 1, half / "1").config.price.call_nanos == 5
    config = layout.package("half", 2, half / "2").config
    assert (config.price.call_nanos, config.batching.max_batch) == (None, 7)


def test_config_lies_beside_a_bare_file(tmp_path: Path) -> None:
    path = save(tmp_path, crafted.identity(), "m.onnx")
    (tmp_path / "m.toml").write_text("[price]\ncall_nanos = 0")
    assert layout.package("m", 1, path).config.price.call_nanos == 0


def test_labels_are_those_of_the_config_or_lines_beside_the_model(repository: Path) -> None:
    half = repository / "half"
    assert layout.package("half", 2, half / "2").config.labels == ()
    (half / "2" / "labels.txt").write_text("cat\ndog \n", "utf-8")
    assert layout.package("half", 2, half / "2").config.labels == ("cat", "dog ")
    (half / "tidemill.toml").write_text('labels = ["no", "yes"]')
    assert layout.package("half", 2, half / "2").config.labels == ("no", "yes")
    assert layout.package("half", 1, half / "1").config.labels == ("no", "yes")


def test_what_is_no_list_of_names_is_left_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = repository / "half" / "2" / "labels.txt"
    place.write_bytes(b"caf\xe9")
    assert layout.package("half", 2, place.parent).config.labels == ()
    place.write_text("a\nb")
    monkeypatch.setattr(model_config, "LABELS_BYTES_MAX", 2)
    assert layout.package("half", 2, place.parent).config.labels == ()


@pytest.mark.parametrize(
    "text",
    [
        "colour = 'red'",
        "[batching]\nmax_batches = 1",
        "[batching]\nmax_batch = 0",
        "[batching]\nmax_batch = -1",
        "[batching]\nmax_batch = '8'",
        "[batching]\nbatched = 1",
        "[price]\ncall_nanos = -1",
        "[price]\ncall_nanos = 9223372036854775808",
        "[price]\ncall_nanos = 0.5",
        "[price]\nnanos = 1",
        "engine = 5",
        "labels = 'cat'",
        "labels = [1, 2]",
        "[[inputs]]\nname = 'x'",
        "[[inputs]]\nname = 'x'\ndatatype = 'FP32'\nshape = [1]\nsahpe = [1]",
        "engine = ",
        "a = " + "[" * 50_000,
    ],
)
def test_config_with_unknown_keys_or_odd_values_is_refused_by_its_file(repository: Path, text: str) -> None:
    (repository / "half" / "tidemill.toml").write_text(text)
    with pytest.raises(RefusedModel, match=r"tidemill\.toml"):
        layout.package("half", 2, repository / "half" / "2")


def test_config_in_another_encoding_is_refused(repository: Path) -> None:
    (repository / "half" / "tidemill.toml").write_bytes(b"engine = '\xff'")
    with pytest.raises(RefusedModel, match=r"tidemill\.toml"):
        layout.package("half", 2, repository / "half" / "2")


def test_echo_needs_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "tidemill.toml").write_text("engine = 'echo'")
    assert layout.package("m", 1, folder).format == "echo"
    assert layout.names(tmp_path) == ["m"]
    assert layout.names(tmp_path / "m") == ["1"]


def test_ir_without_its_weights_is_refused(tmp_path: Path) -> None:
    path = crafted.write_ir(tmp_path / "ir", save(tmp_path, crafted.plus_minus()))
    found = layout.package("ir", 1, path.parent)
    assert (found.format, found.path) == ("openvino", path)
    assert found.size_bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    path.with_suffix(".bin").unlink()
    with pytest.raises(RefusedModel, match=r"model\.bin are missing"):
        layout.package("ir", 1, path.parent)


def test_gguf_is_refused_by_its_format(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(RefusedModel, match="gguf"):
        layout.package("m", 1, tmp_path)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(RefusedModel, match="holds no model"):
            layout.package("m", 1, path)


def test_saved_model_brings_its_own_signature(tmp_path: Path) -> None:
    from tidemill.core.tensor import Signature, TensorSpec

    told = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
    (tmp_path / "saved_model.pb").write_bytes(crafted.saved_model({"serving_default": told}).SerializeToString())
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(bytes(1000))
    found = layout.package("m", 1, tmp_path)
    assert found.signature == told
    assert found.size_bytes > 1000
    assert layout.package("m", 1, tmp_path / "saved_model.pb").path == tmp_path
