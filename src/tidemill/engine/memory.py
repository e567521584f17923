"""Gives memory that an engine needed while it loaded back to the system; used in the process of the engines."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """glibc keeps what was freed; loading frees several times what stays (72 MB against 25 on twelve small products).
    Nothing where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
