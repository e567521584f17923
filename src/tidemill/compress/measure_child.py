"""Loads models as the service would and takes memory and times; runs in a process of its own, started by `measure`."""

from __future__ import annotations

import ctypes
import gc
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from onnx import TensorProto, helper

from tidemill.compress.measure import Footprint, Job, Samples
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Array

MODULES = {"onnxruntime": "tidemill.engine.onnx", "openvino": "tidemill.engine.openvino"}
"""An engine of another name is itself a module with a `load` like theirs."""
BURST_S = 0.004
"""Calls that are quicker are timed several at once, because the clock of CPU time is coarse."""
BURST_CALLS_MAX = 64
ROUNDS_MIN = 3


def main() -> None:
    answer = Path(sys.argv[1])
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        result = footprint(job) if job.kind == "footprint" else latency(job)
    except TidemillError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        sys.exit(3)
    answer.write_bytes(msgspec.json.encode(result))
    sys.stderr.flush()


def footprint(job: Job) -> Footprint:
    engine = job.engines[0]
    feeds = _feeds(job)
    tiny = Path(job.folder, "tiny.onnx")
    tiny.write_bytes(_tiny())
    small = _load(engine, tiny, job.threads)
    small.predict({"x": np.zeros(1, np.float32)}, ())
    _give_back()
    before = _private_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    model = _load(engine, Path(next(iter(job.models.values()))), job.threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    loaded = _private_bytes()
    for each in feeds.values():
        model.predict(each, ())
    ran = _private_bytes()
    _give_back()
    needed = _private_bytes()
    return Footprint(engine, wall, cpu, _more(loaded, before), _more(ran, before), _more(needed, before))


def _more(now: int, before: int) -> int | None:
    """None where the model takes less than what the process gave back meanwhile: then it was not measured."""
    return now - before if now > before else None


def latency(job: Job) -> Samples:
    """Every model in every engine, in turns; a round calls each once, or as often as a burst takes."""
    feeds = _feeds(job)
    reasons: dict[str, str] = {}
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for engine in job.engines:
        for name, path in job.models.items():
            try:
                loaded = _load(engine, Path(path), job.threads)
            except TidemillError as error:
                reasons |= {f"{name} {engine} {fed}": error.message for fed in feeds}
                continue
            for fed, given in feeds.items():
                try:
                    loaded.predict(given, ())
                    calls[name, engine, fed] = _call(loaded, given)
                except TidemillError as error:
                    reasons[f"{name} {engine} {fed}"] = error.message
    keys = list(calls)
    bursts = {key: _burst(call) for key, call in calls.items()}
    walls, cpus = [], []
    end = time.monotonic() + job.seconds_max
    for turn in range(job.rounds):
        if turn >= ROUNDS_MIN and time.monotonic() > end:
            break
        wall, cpu = [0.0] * len(keys), [0.0] * len(keys)
        for step in range(len(keys)):
            at = (step + turn) % len(keys)
            wall[at], cpu[at] = _time(calls[keys[at]], bursts[keys[at]])
        walls.append(wall)
        cpus.append(cpu)
    return Samples(keys, walls, cpus, reasons)


def _call(engine: Any, given: dict[str, Array]) -> Callable[[], Any]:
    return lambda: engine.predict(given, ())


def _burst(call: Callable[[], Any]) -> int:
    """How many calls make a burst; the first calls in an engine are slower, so the second time counts."""
    call()
    wall, _ = _time(call, 1)
    return min(max(int(BURST_S / max(wall, 1e-6)), 1), BURST_CALLS_MAX)


def _time(call: Callable[[], Any], count: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        call()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def _load(engine: str, path: Path, threads: int) -> Any:
    try:
        module = importlib.import_module(MODULES.get(engine, engine))
    except ImportError as error:
        raise RefusedModel(f"{engine} is not installed: {error}") from error
    package = ModelPackage(path.stem, 1, path, "onnx", path.stat().st_size)
    return module.load(package, threads)


def _feeds(job: Job) -> dict[str, dict[str, Array]]:
    found = {}
    for at, name in enumerate(job.feeds):
        with np.load(Path(job.folder, f"{at}.npz"), allow_pickle=False) as held:
            found[name] = {key: held[key] for key in held.files}
    return found


def _tiny() -> bytes:
    kind = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "tiny", [kind],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    return bytes(model.SerializeToString())


def _private_bytes() -> int:
    full = psutil.Process().memory_full_info()
    return int(getattr(full, "uss", full.rss))


def _give_back() -> None:
    """Tell the C library to return what it holds free; nothing where it is another than glibc."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


if __name__ == "__main__":
    main()
