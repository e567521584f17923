"""A process of ours at the other end of a link: how it is started, waited for, and how it ended."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from typing import Final

END_S_MAX: Final = 2.0
"""What a child may take to end after its link has."""


def spawn(command: Sequence[str], handed: Sequence[int]) -> subprocess.Popen[bytes]:
    """`handed` are the files that it inherits, under their numbers."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=handed)


async def reap(process: subprocess.Popen[bytes] | None) -> None:
    """Wait until it has ended; kill it where that takes long."""
    if process is None:
        return
    try:
        await asyncio.to_thread(process.wait, END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


def ending(process: subprocess.Popen[bytes] | None, otherwise: str) -> str:
    """How it ended, in words; `otherwise` where it has not, or never began."""
    code = None if process is None else process.poll()
    return otherwise if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
