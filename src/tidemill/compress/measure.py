"""What a model takes: bytes on disk, private memory, time to load and to answer; taken in processes of their own.

Runs in the command line's process, which starts `measure_child` and waits; nothing is loaded here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tidemill.core.tensor import Tensors
from tidemill.repository import onnx_files

ENGINES = ("onnxruntime", "openvino")
START_S_MAX = 120.0
"""How long a process may take beside the seconds that it is given to measure in."""


class Footprint(msgspec.Struct, frozen=True):
    """One model in one engine, alone in a fresh process.

    Private bytes are those that no other process shares, less what the engine takes with a model of one node in it:
    when the model was loaded, after its first calls, and after the allocator was told to give back what it does not use
    (`needed`). None with a `reason` where it could not be measured, and None alone where it is too little to be seen.
    """

    engine: str
    load_s: float | None = None
    load_cpu_s: float | None = None
    private_bytes_loaded: int | None = None
    private_bytes_run: int | None = None
    private_bytes_needed: int | None = None
    reason: str = ""


class Latency(msgspec.Struct, frozen=True):
    """One model in one engine on one set of feeds: medians over `rounds`, in each of which all models took turns.

    CPU time is that of all threads. The ratios are to the first model in the first engine, median over rounds, with a
    95 % interval of that median. None with a `reason` where it could not be measured.
    """

    model: str
    engine: str
    feeds: str
    rounds: int = 0
    wall_ms: float | None = None
    cpu_ms: float | None = None
    wall_ratio: tuple[float, float, float] | None = None
    cpu_ratio: tuple[float, float, float] | None = None
    reason: str = ""


class Samples(msgspec.Struct, frozen=True):
    """What the child hands back: [round][call kind] for every (model, engine, feeds) that ran."""

    keys: list[tuple[str, str, str]]
    wall_s: list[list[float]]
    cpu_s: list[list[float]]
    reasons: dict[str, str]


class Job(msgspec.Struct, frozen=True):
    """What the child is asked. `kind` is "footprint" (of the only model in the only engine) or "latency". Feeds lie in
    `folder`, one npz each."""

    kind: str
    models: dict[str, str]
    engines: list[str]
    feeds: list[str]
    folder: str
    threads: int
    seconds_max: float = 0.0
    rounds: int = 0


def size_on_disk(path: Path) -> int:
    """Bytes of an ONNX file and of its external data. Raises `RefusedModel`."""
    return onnx_files.check(path)[0]


def footprint(path: Path, engine: str, feeds: Sequence[Tensors], threads: int = 1) -> Footprint:
    """Load `path` in a fresh process, and call it once with each of `feeds`."""
    named = {str(at): each for at, each in enumerate(feeds)}
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        job = _job("footprint", {"model": path}, [engine], named, folder, threads)
        answer, reason = _ask(job, START_S_MAX)
    if reason:
        return Footprint(engine, reason=reason)
    return msgspec.json.decode(answer, type=Footprint)


def latency(
    models: Mapping[str, Path],
    feeds: Mapping[str, Tensors],
    engines: Sequence[str] = ENGINES,
    threads: int = 1,
    rounds: int = 15,
    seconds_max: float = 60.0,
) -> list[Latency]:
    """Time `models` (name to file) in `engines`, in turns, so that what else runs on the machine meets all alike.

    The first model in the first engine is what the ratios are to. At most `rounds`, and about `seconds_max`.
    """
    kept = list(engines)
    gone: dict[str, str] = {}
    samples: Samples | None = None
    while kept and samples is None:
        with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
            job = _job("latency", models, kept, feeds, folder, threads, seconds_max, rounds)
            answer, reason = _ask(job, START_S_MAX + seconds_max)
        if not reason:
            samples = msgspec.json.decode(answer, type=Samples)
        else:
            # It cannot be asked which engine brought the process down; the last one is the likeliest.
            gone[kept.pop()] = reason
    if samples is None:
        return [Latency(m, e, f, reason=gone[e]) for e in engines for m in models for f in feeds]
    return [_summed(samples, gone, key) for key in ((m, e, f) for f in feeds for e in engines for m in models)]


def _summed(samples: Samples, gone: Mapping[str, str], key: tuple[str, str, str]) -> Latency:
    model, engine, fed = key
    if key not in samples.keys:
        reason = gone.get(engine) or samples.reasons.get(f"{model} {engine} {fed}", "it was not measured")
        return Latency(model, engine, fed, reason=reason)
    at = samples.keys.index(key)
    base = next(place for place, each in enumerate(samples.keys) if each[2] == fed)
    wall, cpu = np.array(samples.wall_s), np.array(samples.cpu_s)
    return Latency(
        model, engine, fed, len(wall), float(np.median(wall[:, at])) * 1e3, float(np.median(cpu[:, at])) * 1e3,
        _median_of(wall[:, at] / np.maximum(wall[:, base], 1e-9)),
        _median_of(cpu[:, at] / np.maximum(cpu[:, base], 1e-9)),
    )  # fmt: skip


def _median_of(ratios: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """(median, low, high): the interval that holds the median of what lies behind in 95 % of cases, from ranks."""
    ordered = np.sort(ratios)
    count = len(ordered)
    reach = int(np.floor(count / 2 - 0.98 * np.sqrt(count)))
    low = max(reach, 0)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[count - 1 - low])


def _job(
    kind: str,
    models: Mapping[str, Path],
    engines: list[str],
    feeds: Mapping[str, Tensors],
    folder: str,
    threads: int,
    seconds_max: float = 0.0,
    rounds: int = 0,
) -> Job:
    for at, each in enumerate(feeds.values()):
        np.savez(Path(folder, f"{at}.npz"), **dict(each))  # type: ignore[arg-type]
    paths = {name: str(Path(path).resolve()) for name, path in models.items()}
    return Job(kind, paths, engines, list(feeds), folder, threads, seconds_max, rounds)


def _ask(job: Job, timeout_s: float) -> tuple[bytes, str]:
    """(the child's answer, why there is none)."""
    answer = Path(job.folder, "answer.json")
    words = [sys.executable, "-m", "tidemill.compress.measure_child", str(answer)]
    try:
        done = subprocess.run(
            words, input=msgspec.json.encode(job), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return b"", f"it took longer than {timeout_s:.0f} s"
    if done.returncode == 0 and answer.exists():
        return answer.read_bytes(), ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return b"", f"{said[-1][:400] if said else 'it said nothing'} (exit status {done.returncode})"
