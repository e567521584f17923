"""The work folder of a run: one holder, gone after a good end, swept when nobody came back, full disks told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tidemill.compress import workplace
from tidemill.core.errors import DiskFull, InvalidSetting, WorkUnderWay

MINE, OTHER = "0" * 24, "1" * 24


def left(root: Path, name: str, age_s: float) -> Path:
    """A folder that a run left so long ago."""
    folder = root / name
    (folder / "models").mkdir(parents=True)
    (folder / workplace.LOCK).touch()
    for path in (folder / "models", folder / workplace.LOCK, folder):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder


def test_a_good_end_leaves_nothing(tmp_path: Path) -> None:
    with workplace.held(tmp_path / MINE):
        (tmp_path / MINE / "layers").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_bad_end_leaves_what_was_done(tmp_path: Path) -> None:
    def interrupted() -> None:
        with workplace.held(tmp_path / MINE):
            (tmp_path / MINE / "layers").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / MINE / "layers").is_dir()


def test_reports_of_what_was_refused_outlive_a_good_end(tmp_path: Path) -> None:
    with workplace.held(tmp_path / MINE):
        (tmp_path / MINE / "layers").mkdir()
        (tmp_path / MINE / "refused/70").mkdir(parents=True)
    assert {path.name for path in (tmp_path / MINE).iterdir()} == {"lock", "refused"}


def test_the_folder_is_one_processs_at_a_time_and_free_when_it_dies(tmp_path: Path) -> None:
    holds = (
        "import sys; from pathlib import Path; from tidemill.compress import workplace\n"
        "with workplace.held(Path(sys.argv[1])): print(flush=True); sys.stdin.read(); sys.exit(1)"
    )
    words = [sys.executable, "-c", holds, str(tmp_path / MINE)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(WorkUnderWay, match=f"process {other.pid}"), workplace.held(tmp_path / MINE):
            pass
        with workplace.held(tmp_path / OTHER):
            pass
        other.kill()
    with workplace.held(tmp_path / MINE):
        pass


def test_only_what_is_stale_and_ours_is_swept(tmp_path: Path) -> None:
    stale = left(tmp_path, OTHER, workplace.STALE_S + 60)
    halfway = left(tmp_path, f"{OTHER}.gone-7", workplace.STALE_S + 60)
    young = left(tmp_path, "2" * 24, workplace.STALE_S - 60)
    users = left(tmp_path, "photographs", workplace.STALE_S + 60)
    held = left(tmp_path, "3" * 24, workplace.STALE_S + 60)
    with workplace.held(held):
        for path in (held / "models", held / workplace.LOCK, held):
            os.utime(path, (0, 0))
        with workplace.held(tmp_path / MINE):
            assert [path.exists() for path in (stale, halfway, young, users, held)] == [False, False, True, True, True]


def test_a_write_that_a_full_disk_cuts_short_is_told(tmp_path: Path) -> None:
    (tmp_path / "full.npy").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="--work"), workplace.room(tmp_path):
        np.save(tmp_path / "full.npy", np.zeros(100_000))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="--work"), workplace.held(tmp_path / "file" / MINE):
        pass
