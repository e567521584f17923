"""A package appears whole or not at all, keeps what belongs to the model, and never takes another's place."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import onnx
import pytest

import small_models
from tidemill.compress import publish
from tidemill.core.errors import DiskFull, RefusedModel, UnknownModel
from tidemill.core.package import ModelPackage
from tidemill.repository import layout, lineage
from tidemill.repository.lineage import Lineage, Loss, Measured, Origin, Rows

ONE = Measured(1.0, 1.0, 1.0)


def told(of: str = "whole") -> Lineage:
    return Lineage(
        of=Origin(of, 1, "ab" * 32, 100),
        recipe={"steps": [{"method": "int8", "options": {}}]},
        seed=0,
        data=Rows("x.npz", "cd" * 32, 8, 2),
        loss=Loss("cosine", ONE, ONE, Measured(0.0, 0.0, 0.0), 1.0, 0.99),
        created_at=1.0,
        tidemill="0.1.0",
    )


class Made:
    """A finished model that may fail to be written."""

    def __init__(self, failure: OSError | None = None) -> None:
        self.failure = failure

    def write(self, path: Path | str) -> None:
        Path(path).write_bytes(small_models.whole_numbers().SerializeToString())
        if self.failure:
            raise self.failure


def reported(folder: Path, version: int, model: Path) -> None:
    assert model.is_file()
    folder.mkdir()
    (folder / "report.html").write_text(f"version {version}")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    place = small_models.save(folder, "whole", small_models.whole_numbers())
    (place / "tokenizer.json").write_text("{}")
    (place / "notes.txt").write_text("mine")
    (place / "manifest.json").write_text('{"source": "x==1", "licence": "MIT"}')
    (place.parent / "tidemill.toml").write_text("[batching]\nbatched = true\n")
    return folder


@pytest.fixture
def of(repository: Path) -> ModelPackage:
    return layout.package("whole", 1, repository / "whole" / "1")


def test_a_package_is_a_model_of_the_repository_with_lineage_and_side_files(repository: Path, of: ModelPackage) -> None:
    version, folder = publish.publish(repository, "small", of, Made(), told(), reported)
    assert (version, folder) == (1, repository / "small" / "1")
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "tokenizer.json", "notes.txt", "tidemill.toml", "manifest.json", "report",
    }  # fmt: skip
    package = layout.package("small", 1, folder)
    assert package.source == "whole@1 by int8"
    assert package.config.batching.batched is True
    manifest = lineage.read(folder)
    assert manifest is not None
    assert (manifest.licence, manifest.lineage) == ("MIT", told())
    assert manifest.files["model.onnx"].sha256 == publish.digest(folder / "model.onnx")
    assert "report/report.html" in manifest.files
    assert [(found.name, place) for found, place in lineage.all_of(repository)] == [("small", folder)]
    assert lineage.report(repository, "small", 1, "report.html") == b"version 1"


def test_a_package_names_the_engine_that_was_asked_for(repository: Path, of: ModelPackage) -> None:
    _, folder = publish.publish(repository, "small", of, Made(), told(), reported, engine="openvino")
    config = layout.package("small", 1, folder).config
    assert (config.engine, config.batching.batched) == ("openvino", True)
    manifest = lineage.read(folder)
    assert manifest is not None
    assert manifest.files["tidemill.toml"].sha256 == publish.digest(folder / "tidemill.toml")


def test_the_next_one_is_the_next_version_and_the_first_stays(repository: Path, of: ModelPackage) -> None:
    _, first = publish.publish(repository, "small", of, Made(), told(), reported)
    before = (first / "manifest.json").read_bytes()
    assert publish.publish(repository, "small", of, Made(), told(), reported)[0] == 2
    assert (first / "manifest.json").read_bytes() == before


def test_anothers_model_is_not_joined_without_force(repository: Path, of: ModelPackage) -> None:
    small_models.save(repository, "mine", small_models.text())
    with pytest.raises(RefusedModel, match=r"not made by `compress`.*--force"):
        publish.publish(repository, "mine", of, Made(), told(), reported)
    with pytest.raises(RefusedModel, match=r"--force"):
        publish.next_version(repository, "whole", "whole")
    assert publish.publish(repository, "mine", of, Made(), told(), reported, force=True)[0] == 2
    assert (repository / "mine" / "1" / "model.onnx").read_bytes() == small_models.text().SerializeToString()
    with pytest.raises(RefusedModel, match="made from 'whole'"):
        publish.next_version(repository, "mine", "other")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "ä"])
def test_a_name_that_cannot_stand_in_an_address_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(RefusedModel):
        publish.next_version(repository, name, "whole")


def test_a_full_disk_publishes_nothing(repository: Path, of: ModelPackage) -> None:
    with pytest.raises(DiskFull, match="nothing was published"):
        publish.publish(repository, "small", of, Made(OSError(errno.ENOSPC, "no space")), told(), reported)
    assert list((repository / "small").iterdir()) == []
    assert layout.names(repository) == ["whole"]


def test_an_interruption_leaves_nothing(repository: Path, of: ModelPackage) -> None:
    def interrupted(folder: Path, version: int, model: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish.publish(repository, "small", of, Made(), told(), interrupted)
    assert list((repository / "small").iterdir()) == []


def test_what_a_killed_one_left_is_swept_a_day_later(repository: Path, of: ModelPackage) -> None:
    for name, age_s in (("old", publish.STALE_S + 60), ("young", 60.0)):
        left = repository / "small" / f".new-{name}"
        left.mkdir(parents=True)
        at = time.time() - age_s
        os.utime(left, (at, at))
    publish.publish(repository, "small", of, Made(), told(), reported)
    assert sorted(path.name for path in (repository / "small").iterdir()) == [".new-young", "1"]


def test_a_number_that_another_process_takes_is_passed_over(repository: Path, of: ModelPackage) -> None:
    def taken(folder: Path, version: int, model: Path) -> None:
        if version == 1:
            (repository / "small" / "1").mkdir()
            (repository / "small" / "1" / "model.onnx").write_bytes(model.read_bytes())
            (repository / "small" / "1" / "manifest.json").write_bytes(manifest)

    _, first = publish.publish(repository, "other", of, Made(), told(), reported)
    manifest = (first / "manifest.json").read_bytes()
    assert publish.publish(repository, "small", of, Made(), told(), taken)[0] == 2


def test_beside_a_bare_file_only_well_known_names_are_carried(tmp_path: Path) -> None:
    for name in ("labels.txt", "diary.txt", "other.onnx"):
        (tmp_path / name).write_text("x")
    (tmp_path / "net.toml").write_text("")
    path = tmp_path / "net.onnx"
    path.write_bytes(small_models.whole_numbers().SerializeToString())
    of = ModelPackage("net", 1, path, "onnx", 1)
    assert {target for _, target in publish.side_files(of)} == {"labels.txt", "tidemill.toml"}


def test_external_data_is_digested_and_not_carried_over(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    onnx.save_model(
        small_models.poison(),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.raw",
        size_threshold=0,
    )
    of = ModelPackage("m", 1, folder / "model.onnx", "onnx", 1)
    first = publish.model_digest(of.path)
    assert publish.model_bytes(of.path) == sum(path.stat().st_size for path in folder.iterdir())
    assert list(publish.side_files(of)) == []
    data = bytearray((folder / "weights.raw").read_bytes())
    data[0] ^= 1
    (folder / "weights.raw").write_bytes(data)
    assert publish.model_digest(of.path) != first


@pytest.mark.parametrize("file", ["manifest.json", "../manifest.json", "report.txt"])
def test_only_a_report_is_handed_out(repository: Path, of: ModelPackage, file: str) -> None:
    publish.publish(repository, "small", of, Made(), told(), reported)
    with pytest.raises(UnknownModel):
        lineage.report(repository, "small", 1, file)


def test_a_manifest_that_tells_no_lineage_is_passed_over(repository: Path) -> None:
    assert list(lineage.all_of(repository)) == []
    (repository / "whole" / "1" / "manifest.json").write_text("[1")
    assert lineage.read(repository / "whole" / "1") is None
