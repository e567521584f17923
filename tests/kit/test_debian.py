from __future__ import annotations

import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import FetchFailed
from tidemill.kit import debian
from tidemill.kit.debian import DebianPackage, package_file, unpack
from tidemill.kit.tree import record

NAME = "usr/share/x/a.gz"


def ar(members: dict[str, bytes]) -> bytes:
    """An archive as `ar` writes it."""
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def tar(files: dict[str, bytes], mode: Any = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def deb(files: dict[str, bytes]) -> bytes:
    return ar({"debian-binary": b"2.0\n", "control.tar.xz": tar({"./control": b"x"}), "data.tar.xz": tar(files)})


PACKAGE = deb({f"./{NAME}": b"pictures", "./usr/share/x/b": b"other"})


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w"])
def test_files_come_out_of_a_package(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(ar({"debian-binary": b"2.0\n", "data.tar/": tar({f"./{NAME}": b"odd", "./b": b"bb"}, mode)}))
    assert unpack(path, [NAME]) == {NAME: b"odd"}
    assert unpack(path, ["b", NAME]) == {NAME: b"odd", "b": b"bb"}


def test_link_out_of_the_package_is_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo(f"./{NAME}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    path = tmp_path / "x.deb"
    path.write_bytes(ar({"data.tar": buffer.getvalue()}))
    with pytest.raises(FetchFailed, match="holds no usr"):
        unpack(path, [NAME])


@given(st.integers(0, len(PACKAGE) - 1))
def test_package_that_is_cut_short_is_a_clear_error(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.deb"
    path.write_bytes(PACKAGE[:length])
    with pytest.raises(FetchFailed, match=r"cut\.deb"):
        unpack(path, [NAME])


@pytest.mark.parametrize(
    "data", [b"", b"!<arch>\nshort", ar({"data.tar.xz": b"no tar"}), ar({"x": b""})[:-12] + b"-5        `\n"]
)
def test_what_is_no_package_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    with pytest.raises(FetchFailed, match=r"x\.deb"):
        unpack(path, [NAME])


@pytest.fixture
def wanted() -> DebianPackage:
    return DebianPackage("x", "1", "x_1_all.deb", len(PACKAGE), record(PACKAGE).sha256)


@pytest.fixture
def apt(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get that gives the bytes in `package`, or says what is in `error`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "package").write_bytes(PACKAGE)
    script = folder / "apt-get"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n'
        f"if [ -f {folder}/error ]; then cat {folder}/error >&2; exit 100; fi\n"
        f"cp {folder}/package x_1_all.deb\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_package_is_downloaded_once(apt: Path, wanted: DebianPackage, empty_cache: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    path = package_file(wanted, lambda *step: steps.append(step))
    assert path.read_bytes() == PACKAGE
    assert package_file(wanted) == path
    assert (apt / "asked").read_text() == "download --quiet x=1\n"
    assert steps == [("fetching x=1", 0, len(PACKAGE)), ("fetching x=1", len(PACKAGE), len(PACKAGE))]
    assert {each.name for each in (empty_cache / "debian").iterdir()} == {"x_1_all.deb", "x_1_all.deb.lock"}


def test_package_of_another_digest_is_refused(apt: Path, wanted: DebianPackage, empty_cache: Path) -> None:
    with pytest.raises(FetchFailed, match="expected 000"):
        package_file(replace(wanted, sha256="0" * 64))
    assert [each.name for each in (empty_cache / "debian").iterdir()] == ["x_1_all.deb.lock"]


def test_what_apt_says_is_told_with_what_to_do(apt: Path, wanted: DebianPackage) -> None:
    (apt / "error").write_text("W: beware\nE: Unable to locate package x\n")
    with pytest.raises(FetchFailed, match=r"Unable to locate package x; `sudo apt-get update` .* put x_1_all.deb into"):
        package_file(wanted)


def test_machine_without_apt_is_a_clear_error(
    wanted: DebianPackage, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchFailed, match="apt-get cannot be run here"):
        package_file(wanted)


def test_apt_that_does_not_come_back_is_a_clear_error(
    wanted: DebianPackage, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(*arguments: Any, **named: Any) -> NoReturn:
        raise subprocess.TimeoutExpired("apt-get", debian.APT_S_MAX)

    monkeypatch.setattr(subprocess, "run", stuck)
    with pytest.raises(FetchFailed, match="600 s"):
        package_file(wanted)
