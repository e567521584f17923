"""The cache of what was compiled: whole entries or none, whoever interrupts."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.compile import cache
from tidemill.core.errors import DiskFull, RefusedExport
from tidemill.engine import artefact
from tidemill.engine.artefact import Found

SOURCE = "5" * 32
MANY = 10**9


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_CACHE_DIR", str(tmp_path))
    return tmp_path / "compiled"


def writing(data: bytes = b"graph") -> cache.Build:
    def build(folder: Path) -> dict[str, float]:
        (folder / "model").write_bytes(data)
        return {"nats": 0.25}

    return build


def put(
    build: cache.Build | None = None, source: str = SOURCE, force: bool = False, bytes_max: int = MANY, **options: str
) -> tuple[Found, bool]:
    return cache.put(source, options, {"maker": "1"}, "genai", build or writing(), force, bytes_max)


def left(place: Path) -> list[str]:
    return sorted(each.name for each in place.rglob("*") if each.is_dir() and each.name.startswith(artefact.FRESH))


def test_what_was_built_is_found_and_not_built_again(place: Path) -> None:
    found, reused = put(weights="int8")
    assert not reused
    assert (found.path / "model").read_bytes() == b"graph"
    assert found.artefact.measured == {"nats": 0.25}
    assert found.artefact.files == {"model": 5}

    def never(folder: Path) -> dict[str, float]:
        raise AssertionError

    assert put(never, weights="int8") == (found, True)
    assert artefact.of_source(SOURCE) == [found]
    assert left(place) == []


def test_other_options_and_versions_are_other_entries(place: Path) -> None:
    first, _ = put(weights="int8")
    second, _ = put(weights="f16")
    assert first.path != second.path
    third, _ = cache.put(SOURCE, {"weights": "int8"}, {"maker": "2"}, "genai", writing(), False, MANY)
    assert {each.path for each in artefact.of_source(SOURCE)} == {first.path, second.path, third.path}
    assert artefact.of_source(SOURCE)[0].path == third.path


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RefusedExport("no"), SystemExit(143)])
def test_interrupted_leaves_nothing_and_begins_anew(place: Path, error: BaseException) -> None:
    def breaks(folder: Path) -> dict[str, float]:
        (folder / "model").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        put(breaks)
    assert artefact.of_source(SOURCE) == []
    assert left(place) == []
    assert put()[1] is False


def test_no_room_is_told(place: Path) -> None:
    def full(folder: Path) -> dict[str, float]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull):
        put(full)
    assert left(place) == []


def test_what_lost_a_file_is_no_entry_and_is_built_again(place: Path) -> None:
    found, _ = put()
    (found.path / "model").write_bytes(b"gra")
    assert artefact.of_source(SOURCE) == []
    again, reused = put()
    assert not reused
    assert (again.path / "model").read_bytes() == b"graph"


def test_force_builds_anew(place: Path) -> None:
    put()
    found, reused = put(writing(b"other"), force=True)
    assert not reused
    assert (found.path / "model").read_bytes() == b"other"
    assert left(place) == []


def test_what_a_killed_one_left_is_removed_and_what_is_being_built_is_not(place: Path) -> None:
    dead, living = place / SOURCE / f"{artefact.FRESH}dead", place / SOURCE / f"{artefact.FRESH}living"
    for each in (dead, living):
        each.mkdir(parents=True)
        (each / cache.LOCK).touch()
    with (living / cache.LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        put()
    assert left(place) == [living.name]


def test_two_at_once_end_with_one_entry(place: Path) -> None:
    meet = threading.Barrier(2)

    def slow(folder: Path) -> dict[str, float]:
        (folder / "model").write_bytes(b"graph")
        meet.wait(10)
        return {}

    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(put(slow)[0].path)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(paths) == 2
    assert len(artefact.of_source(SOURCE)) == 1
    assert left(place) == []


def test_what_was_used_longest_ago_leaves_first(place: Path) -> None:
    found = [put(writing(b"x" * 10), source=each * 32)[0] for each in "abc"]
    for age, each in enumerate(found):
        os.utime(each.path / artefact.MANIFEST, (1000 + age, 1000 + age))
    artefact.used(found[0].path)
    last, _ = put(writing(b"x" * 10), source="d" * 32, bytes_max=25)
    assert {each.path for each in artefact.everything()} == {last.path, found[0].path}
    alone, _ = put(writing(b"x" * 100), source="e" * 32, bytes_max=1)
    assert [each.path for each in artefact.everything()] == [alone.path]


def test_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    def of(write: Callable[[Path], object]) -> str:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        for each in folder.iterdir():
            each.unlink()
        write(folder)
        return artefact.digest(sorted(folder.iterdir()))

    told = [
        of(lambda folder: (folder / "a").write_bytes(b"1")),
        of(lambda folder: (folder / "b").write_bytes(b"1")),
        of(lambda folder: (folder / "a").write_bytes(b"2")),
        of(lambda folder: [(folder / each).write_bytes(b"1") for each in "ab"]),
    ]
    assert len(set(told)) == 4
    assert told[0] == of(lambda folder: (folder / "a").write_bytes(b"1"))
