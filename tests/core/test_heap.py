"""Freed memory is kept for the next buffer of its size."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tidemill.core.heap import keep_freed

FAULTS = """
import resource, sys
from tidemill.core.heap import keep_freed
assert keep_freed({kept}) is {works}
bytes(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytes(bytearray(8 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)


def faults(kept: int, works: bool) -> int:
    """Pages that the kernel had to bring while a process filled 40 buffers of 8 MiB one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(kept=kept, works=works)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@glibc
def test_a_buffer_takes_the_memory_of_the_one_before() -> None:
    assert faults(64 << 20, True) * 5 < faults(0, False)


def test_nothing_to_keep_changes_nothing() -> None:
    assert keep_freed(0) is False
