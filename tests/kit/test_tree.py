from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import FetchFailed
from tidemill.kit import tree

FILES = {"1/model.onnx": b"model", "1/variables/a": b"a", "manifest.json": b"{}"}


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_settled_folder_holds_the_files_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    tree.settle(tmp_path / "m", FILES)
    assert content(tmp_path) == {f"m/{name}": data for name, data in FILES.items()}


def test_settling_mends_what_is_wrong_and_leaves_what_is_the_users(tmp_path: Path) -> None:
    root = tmp_path / "m"
    tree.settle(root, FILES)
    (root / "2").mkdir()
    (root / "2/model.onnx").write_bytes(b"mine")
    (root / "1/model.onnx").write_bytes(b"mod")
    (root / "1/variables/a").unlink()
    (root / "1/variables").rmdir()
    tree.settle(root, FILES)
    assert content(root) == FILES | {"2/model.onnx": b"mine"}


def test_right_file_is_not_written_again(tmp_path: Path) -> None:
    tree.settle(tmp_path / "m", FILES)
    before = (tmp_path / "m/1/model.onnx").stat().st_ino
    tree.settle(tmp_path / "m", FILES)
    assert (tmp_path / "m/1/model.onnx").stat().st_ino == before


def test_remains_of_a_killed_process_are_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".m.new-1/1").mkdir(parents=True)
    (tmp_path / ".m.new-1/1/model.onnx").write_bytes(b"half of it")
    tree.settle(tmp_path / "m", FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at its second file: nothing is under the model's name."""
    write, written = Path.write_bytes, []

    def dying(path: Path, data: bytes) -> int:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", dying)
    with pytest.raises(KeyboardInterrupt):
        tree.settle(tmp_path / "m", FILES)
    assert not (tmp_path / "m").exists()


@given(st.sampled_from(["../x", "/etc/x", "a/../../x", "..", "", ".", "a\\..\\x", "a\0b"]))
def test_path_that_leaves_the_folder_is_refused_before_anything_is_written(name: str) -> None:
    root = Path("never-written")
    with pytest.raises(FetchFailed, match="outside"):
        tree.settle(root, {"good": b"", name: b""})
    assert not root.exists()


def test_truncated_and_missing_files_are_not_intact(tmp_path: Path) -> None:
    tree.settle(tmp_path / "m", FILES)
    records = {name: tree.record(data) for name, data in FILES.items()}
    assert tree.intact(tmp_path / "m", records)
    (tmp_path / "m/1/model.onnx").write_bytes(b"mod")
    assert not tree.intact(tmp_path / "m", records)
    assert not tree.intact(tmp_path / "nothing", records)


def test_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path / "lock",))
    child.start()
    child.join()
    assert child.exitcode == 9
    with tree.lock(tmp_path / "lock", wait_s_max=0):
        pass


def _hold_and_die(path: Path) -> None:
    import os

    with tree.lock(path):
        os._exit(9)
