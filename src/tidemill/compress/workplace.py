"""The folder in which a run keeps what it has done so far: one run's at a time; in the command line's process.

`ROOT/DIGEST` holds a lock, the solved layers, the tensors that wait, the models before they are published, and the
reports of those that were refused. After a good end only such reports are left; what nobody came back for is swept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tidemill.core.errors import DiskFull, InvalidSetting, WorkUnderWay

LOCK: Final = "lock"
REFUSED: Final = "refused"
STALE_S: Final = 7 * 24 * 3600.0
TRIES_MAX: Final = 16
_OURS: Final = re.compile(r"[0-9a-f]{24}")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """`folder`, made where it is not there, as this run's alone; what is stale beside it is swept. After a good end it
    is gone, but for reports of what was refused.

    Raises `WorkUnderWay` where another run has it, `DiskFull` wherever the block finds a disk full, `InvalidSetting`
    where there can be no such folder.
    """
    with room(folder):
        lock = _locked(folder)
        try:
            _sweep(folder)
            yield
            _clear(folder)
        finally:
            os.close(lock)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Raises `DiskFull` where the block finds no room to write; other errors as they are."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        place = error.filename if isinstance(error.filename, str) else str(folder)
        raise DiskFull(
            f"there is no room left to write {place}: nothing was published; make room, or name another work folder"
            " (--work), and run the same command again: layers that were finished are kept"
        ) from error


def is_full(error: OSError) -> bool:
    # numpy tells of a write that was cut short without a number.
    return error.errno in {errno.ENOSPC, errno.EDQUOT} or (error.errno is None and "written" in str(error))


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock until it is closed."""
    for _ in range(TRIES_MAX):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # whoever had it has just removed it
            continue
        except OSError as error:
            if is_full(error):
                raise
            raise InvalidSetting(
                f"the work folder {folder} cannot be made: {error.strerror}; name another with --work"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(lock, 32).decode(errors="replace").strip()
            os.close(lock)
            raise WorkUnderWay(
                f"the same work is under way in process {who or 'unknown'}, in {folder}: wait for it to end, or name"
                " another work folder (--work); what differs in its result's name alone is the same work"
            ) from None
        if _is_still(lock, folder / LOCK):
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            return lock
        os.close(lock)
    raise WorkUnderWay(f"{folder}: other runs of the same work came and went {TRIES_MAX} times; say it again")


def _is_still(lock: int, path: Path) -> bool:
    """Whether the file that was locked is the one that others will find."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), path.stat())
    return False


def _clear(folder: Path) -> None:
    if (folder / REFUSED).is_dir():
        for each in folder.iterdir():
            if each.name not in {REFUSED, LOCK}:
                shutil.rmtree(each, ignore_errors=True)
        return
    _remove(folder)


def _remove(folder: Path) -> None:
    """From under its name at once, so that the next run of the same work does not meet half of it."""
    gone = folder.with_name(f"{folder.name}.gone-{os.getpid()}")
    with suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """What was left beside `folder` and has not been touched for `STALE_S`. Other names are somebody else's."""
    for each in folder.parent.iterdir():
        if each == folder or not _OURS.fullmatch(each.name.partition(".gone-")[0]) or not each.is_dir():
            continue
        with suppress(OSError):
            if time.time() - max(at.stat().st_mtime for at in (each, *each.iterdir())) <= STALE_S:
                continue
            lock = os.open(each / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(each)
            finally:
                os.close(lock)
