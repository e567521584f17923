"""onnxruntime alone as a side of a benchmark: `ort_rows.py` in a process of its own, told how many rows to run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common import HERE, BenchmarkFailed
from rounds import Sample, Side

STOP_S_MAX = 15.0


@contextmanager
def onnxruntime_side(name: str, model: Path, row: Path, threads: int, batch: int, spinning: bool) -> Iterator[Side]:
    command = [sys.executable, str(HERE / "ort_rows.py"), str(model), str(row)]
    command += ["--threads", str(threads), "--batch", str(batch), *([] if spinning else ["--no-spinning"])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        try:
            _line(popen, name)
            yield Side(name, partial(_rows, popen, name, batch))
        finally:
            assert popen.stdin
            popen.stdin.close()
            popen.wait(STOP_S_MAX)


async def _rows(popen: subprocess.Popen[str], name: str, batch: int, rows: int) -> Sample:
    rows = max(rows // batch, 1) * batch
    assert popen.stdin
    popen.stdin.write(f"{rows}\n")
    popen.stdin.flush()
    spent_s = float(await asyncio.to_thread(_line, popen, name))
    return Sample(spent_s / rows * 1e6)


def _line(popen: subprocess.Popen[str], name: str) -> str:
    assert popen.stdout
    line = popen.stdout.readline()
    if not line:
        raise BenchmarkFailed(f"{name} ended with {popen.wait(STOP_S_MAX)}")
    return line
