"""How much files and batches may ask for; plain values, in the owner process."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tidemill.core.settings import Settings

FILE_NAME_CHARACTERS_MAX: Final = 255
CUSTOM_ID_CHARACTERS_MAX: Final = 512
FIELD_BYTES_MAX: Final = 1024
"""A plain field of the form that brings a file."""
LIST_MAX: Final = 100
FILES_LIST_MAX: Final = 10_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class BatchBounds(msgspec.Struct, frozen=True):
    """What the settings say."""

    file_bytes_max: int
    line_bytes_max: int
    lines_max: int
    files_max: int
    files_bytes_max: int
    unfinished_max: int
    window_s_max: int
    running_max: int
    places: int
    tries: int


def bounds(settings: Settings) -> BatchBounds:
    return BatchBounds(
        file_bytes_max=min(settings.file_bytes_max, settings.body_bytes_max),
        line_bytes_max=min(settings.words_body_bytes_max, settings.body_bytes_max),
        lines_max=settings.batch_lines_max,
        files_max=settings.files_max,
        files_bytes_max=settings.files_bytes_max,
        unfinished_max=settings.batches_unfinished_max,
        window_s_max=settings.batch_window_s_max,
        running_max=settings.batches_running_max,
        places=settings.batch_places,
        tries=settings.batch_tries,
    )


def seconds(window: str) -> int | None:
    """`24h` in seconds; None where it is no such text."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", window)
    return int(found[1]) * _UNITS[found[2]] if found else None
