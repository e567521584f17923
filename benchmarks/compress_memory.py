"""How much memory compression takes at most, ours and onnxruntime's own static int8, on calibration rows of 128 tokens.

Each case is a process of its own with the workers that it starts. What they take together (what is shared counts once)
is looked at ten times a second; the greatest resident set of the process alone is what the kernel says of it. The rows
are pieces of the kit's background corpus. One that passes `--limit-gb` is ended and told so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from common import HERE, kit_models, leave_on_sigterm
from report import machine, versions

WORDS = 160
"""Of a row: 128 tokens and more of MiniLM's."""
TOKENS = 128
BATCH = 16
OURS = "tidemill"
METHODS = ("int8", "gptq", "adaquant", "kmeans", "two-bit", "binary", "laplace")
LOOK_S = 0.1


def texts(path: Path, rows: int) -> None:
    """So many rows of `WORDS` words each, drawn from the corpus with a seed."""
    from tidemill.kit.datasets import data

    words = data("lee_background.txt").read_text("utf-8").split()
    draw = random.Random(0)  # noqa: S311 - rows, not secrets
    starts = [draw.randrange(len(words) - WORDS) for _ in range(rows)]
    path.write_text("".join(" ".join(words[at : at + WORDS]) + "\n" for at in starts), "utf-8")


def ours(model: Path, rows: Path, folder: Path, count: int, method: str) -> list[str]:
    recipe = folder / "recipe.yaml"
    told = {"model": model.parents[1].name, "data": str(rows), "held": "lee.txt", "metric": "cosine",
            "reading": {"rows": count, "tokens": TOKENS, "batch": BATCH}, "steps": [{"method": method}]}  # fmt: skip
    recipe.write_text(json.dumps(told))  # which is YAML
    return [sys.executable, "-m", "tidemill", "compress", "--recipe", str(recipe), "--models", str(model.parents[2]),
            "-o", "calibrated", "--force", "--no-measure", "--work", str(folder / "work")]  # fmt: skip


def theirs(model: Path, rows: Path, folder: Path, method: str) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--calibrate", method, str(model), str(rows), str(folder)]


def calibrate(method: str, model: Path, rows: Path, folder: Path) -> None:
    """onnxruntime.quantization on the same rows, fed a batch at a time; in the process that is measured."""
    import numpy as np
    from onnxruntime import quantization as q
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.with_name("tokenizer.json")))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)  # its histograms want batches of one shape

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = self._read()

        def _read(self) -> Iterator[dict[str, Any]]:
            lines = rows.read_text("utf-8").splitlines()
            for start in range(0, len(lines) - BATCH + 1, BATCH):
                found = tokenizer.encode_batch(lines[start : start + BATCH])
                ids = np.array([each.ids for each in found], np.int64)
                mask = np.array([each.attention_mask for each in found], np.int64)
                yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    q.quantize_static(
        str(model), str(folder / "theirs.onnx"), Reader(), per_channel=True,
        calibrate_method=q.CalibrationMethod[method], activation_type=q.QuantType.QUInt8,
    )  # fmt: skip


def together(process: psutil.Process) -> int:
    """Bytes of `process` and all it started, a page that several hold counted once among them."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += each.memory_full_info().pss
    return total


def peak(command: Sequence[str], limit_bytes: int) -> dict[str, Any]:
    """The greatest resident set of the command's own process, and the most that it and its children took at once."""

    started = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    resource.prlimit(child.pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    most = [0]
    ended = threading.Event()

    def watch() -> None:
        process = psutil.Process(child.pid)
        while not ended.wait(LOOK_S):
            most[0] = max(most[0], together(process))

    watching = threading.Thread(target=watch)
    watching.start()
    assert child.stderr is not None
    said = child.stderr.read().decode(errors="replace").strip().splitlines()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = status
    ended.set()
    watching.join()
    found = {"peak_bytes": used.ru_maxrss * 1024, "peak_bytes_together": most[0],
             "cpu_s": round(used.ru_utime + used.ru_stime, 1),
             "took_s": round(time.monotonic() - started, 1)}  # fmt: skip
    return found if not status else {**found, "failed": (said or ["it said nothing"])[-1][:200]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="how many; may be given several times")
    parser.add_argument(
        "--side",
        action="append",
        help="one of our methods, or MinMax, Entropy or Percentile of theirs; may be given twice",
    )
    parser.add_argument("--limit-gb", type=float, default=12.0, help="what a process may take at most")
    parser.add_argument("--models", type=Path, help="repository to keep the model in, instead of a new one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for compress_memory.json")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument("--calibrate", nargs=4, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.calibrate:
        method, *paths = flags.calibrate
        calibrate(method, *(Path(path) for path in paths))
        return 0
    leave_on_sigterm()
    file = flags.results / "compress_memory.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    with kit_models(flags.models, "minilm") as models:
        model = models / "minilm" / "1" / "model.onnx"
        for count in flags.rows or [100, 1000]:
            for side in flags.side or [*METHODS, "MinMax"]:
                with tempfile.TemporaryDirectory(prefix="tidemill-") as place:
                    folder = Path(place)
                    rows = folder / "rows.txt"
                    texts(rows, count)
                    mine = side in METHODS
                    made = ours(model, rows, folder, count, side) if mine else theirs(model, rows, folder, side)
                    told = peak(made, int(flags.limit_gb * 2**30))
                print(f"{side}, {count} rows: {told}", flush=True)
                key = f"{OURS} {side} {count}" if mine else f"{side} {count}"
                results[key] = {**told, "machine": machine(), "versions": versions()}
                if not flags.no_write:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
