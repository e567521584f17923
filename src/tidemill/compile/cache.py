"""The cache of what was built: an entry appears whole or not at all; runs in the command line's process.

A build writes into a folder of its own beside its place and is renamed when it is whole. Whoever builds holds a lock in
that folder, so that what a killed one left behind is known, and removed by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tidemill.core.errors import DiskFull, RefusedExport
from tidemill.engine import artefact
from tidemill.engine.artefact import FRESH, Artefact, Found

LOCK: Final = ".building"
YOUNG_S: Final = 60.0
"""A folder without a lock that is younger than this may be about to get one."""

Build = Callable[[Path], dict[str, float]]
"""Fills a folder; returns what was measured of the result."""


def put(
    source: str,
    options: dict[str, str],
    made_with: dict[str, str],
    form: str,
    build: Build,
    force: bool,
    bytes_max: int,
) -> tuple[Found, bool]:
    """The entry of this source and these options, and whether it was there already.

    What was used longest ago leaves the cache when it holds more than `bytes_max`. Raises what `build` does,
    `DiskFull`, and `RefusedExport` where the cache cannot be written.
    """
    key = artefact.key(options, made_with)
    home = artefact.place() / source / key
    there = artefact.read(home)
    if there is not None and not force:
        artefact.used(home)
        return Found(home, there), True
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        sweep()
        fresh = Path(tempfile.mkdtemp(prefix=FRESH, dir=home.parent))
        try:
            with (fresh / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                measured = build(fresh)
                files = {each.name: each.stat().st_size for each in sorted(fresh.iterdir()) if each.name != LOCK}
                made = Artefact(source, key, form, options, made_with, time.time(), files, measured)
                _write(fresh / artefact.MANIFEST, msgspec.json.encode(made))
                fresh.chmod(0o755)
                (fresh / LOCK).unlink()
                made = _placed(fresh, home, made, force)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"there is no room left under {home.parent}: nothing was kept; make room, say it again"
            ) from error
        raise RefusedExport(
            f"{home.parent} cannot be written: {error}; TIDEMILL_CACHE_DIR names another cache"
        ) from error
    _shrink(home, bytes_max)
    return Found(home, made), False


def sweep() -> None:
    """Remove what builders left behind that were killed."""
    for folder in artefact.place().glob(f"*/{FRESH}*"):
        try:
            with (folder / LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            if time.time() - _changed(folder) < YOUNG_S:
                continue
        except OSError:
            continue  # it is being built
        shutil.rmtree(folder, ignore_errors=True)


def _placed(fresh: Path, home: Path, made: Artefact, force: bool) -> Artefact:
    """What stands at `home` afterwards: `made`, or what another process put there meanwhile."""
    if home.exists():
        there = artefact.read(home)
        if there is not None and not force:
            return there
        aside = Path(tempfile.mkdtemp(prefix=FRESH, dir=home.parent))
        home.rename(aside / "old")
        shutil.rmtree(aside, ignore_errors=True)
    fresh.rename(home)
    return made


def _shrink(keep: Path, bytes_max: int) -> None:
    total = 0
    for each in artefact.everything():
        total += each.artefact.size_bytes
        if total > bytes_max and each.path != keep:
            shutil.rmtree(each.path, ignore_errors=True)
            total -= each.artefact.size_bytes


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
