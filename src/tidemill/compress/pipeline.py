"""The layer-wise engine: stage after stage, each with the inputs that the compressed stages before it give.

For every stage: take the moments of its inputs, aim each layer at the original's outputs (`correct.py`), let workers
solve, put the answers into the graph. Every answer is kept on disk under the digest of all that led to it, so the same
run goes on where it was interrupted, and ends with the same bits. Runs in the command line's process; solvers in the
executor's.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import tidemill
from tidemill.compress import correct, one_thread, proto_stream
from tidemill.compress.capture import HELD_ROWS_MAX, Capture, DataLike, Stage, stages
from tidemill.compress.forms import Activation, Form
from tidemill.compress.graph import Graph
from tidemill.compress.layer_cache import Answer, LayerCache
from tidemill.compress.layers import Layer, LeftAlone
from tidemill.compress.moments import Captured
from tidemill.compress.solving import solve
from tidemill.compress.task import LayerResult, LayerTask, Solver
from tidemill.core.contracts import Clock
from tidemill.core.errors import EngineFailed, InvalidRecipe, RefusedLayer
from tidemill.core.tensor import Array

Sequential: TypeAlias = Literal["stage", "off"]
"""Whether a stage sees its compressed predecessors ("stage") or the original model ("off", quicker)."""
Emitter: TypeAlias = Callable[[Graph, Layer, Form, Activation | None, "Array | None"], None]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is. `left_s` is None until something can be said."""

    done: int
    total: int
    what: str
    elapsed_s: float
    left_s: float | None


Progress: TypeAlias = Callable[[Step], None]


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """`results` by layer in the order they were put into `graph`; `refused` layers are as they were."""

    graph: Graph
    base: Graph
    results: Mapping[Layer, LayerResult]
    refused: tuple[LeftAlone, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run goes. `executor` None makes a pool of `jobs` processes (0: one a core); another one is used and left
    open. `emitter` None is `emit.emit`. `work` holds the answers, and the tensors that wait."""

    work: Path
    seed: int = 0
    sequential: Sequential = "stage"
    corrects: bool = True
    executor: Executor | None = None
    jobs: int = 0
    threads: int = 2
    held_rows_max: int = HELD_ROWS_MAX
    progress: Progress | None = None
    clock: Clock = time.monotonic
    emitter: Emitter | None = None


def layerwise(
    base: Graph,
    data: DataLike,
    solver: Solver,
    layers: Sequence[Layer],
    options: Mapping[str, Any],
    settings: Settings,
) -> Solved:
    """Compress `layers` of `base` (which stays as it is) towards what it computes. Layers that share weights are solved
    once, when any of them is asked for. Raises `InvalidRecipe` for no layers, `BadData`, `DiskFull`."""
    if not layers:
        known = ", ".join(layer.name for layer in base.layers()[:8]) or "none that can be compressed"
        raise InvalidRecipe(f"no layer was named; the model's layers are {known}; look at them all by `layers`")
    current = base.copy()
    todo = stages(_with_shared(base, layers))
    emitter = settings.emitter or _default_emitter()
    cache = LayerCache(settings.work / "layers")
    results: dict[Layer, LayerResult] = {}
    refused: list[LeftAlone] = []
    # What x was matters only to aim at it; without, the compressed model alone is run.
    onward = settings.sequential == "stage"
    run_of, beside = (base, current if onward else None) if settings.corrects or not onward else (current, None)
    with (
        Capture(run_of, beside, todo, data, settings.work,
                threads=settings.threads, held_rows_max=settings.held_rows_max) as capture,
        _pool(settings) as pool,
    ):  # fmt: skip
        run = _digest(base, capture.digest, solver, options, settings, todo)
        meter = Meter(settings, todo)
        for stage in todo:
            keys = {layer.name: key(run, layer.name) for layer in stage.layers}
            answers = {name: answer for name, key in keys.items() if (answer := cache.get(key)) is not None}
            missing = [layer for layer in stage.layers if layer.name not in answers]
            meter.at(stage, bool(missing))
            if missing:
                captured = capture.take(stage)
                tasks = {layer.name: _tasks(base, layer, captured[layer.name], options, settings) for layer in missing}
                del captured
                for name, answer in _solve(pool(), solver, tasks):
                    cache.put(keys[name], answer)
                    answers[name] = answer
            else:
                capture.skip(stage, changes=True)
            for layer in stage.layers:
                answer = answers[layer.name]
                if isinstance(answer, str):
                    refused.append(LeftAlone(layer.name, layer.op, answer))
                    continue
                reason = put(current, layer, stage.shared.get(layer.name, ()), answer, emitter)
                if reason:
                    refused.append(LeftAlone(layer.name, layer.op, reason))
                else:
                    results[layer] = answer
        notes = _notes(todo)
        meter.end()
    current.drop_unused()
    return Solved(current, base, results, tuple(refused), notes)


def put(graph: Graph, layer: Layer, shared: Sequence[Layer], result: LayerResult, emitter: Emitter) -> str:
    """One answer into the graph; layers that share the weights get them too, but keep their own bias. Gives the reason
    where it cannot be written; the graph is then as it was."""
    before = graph.copy()
    try:
        emitter(graph, layer, result.form, result.activation, result.bias)
        for other in shared:
            emitter(graph, other, result.form, result.activation if other.input == layer.input else None, None)
    except RefusedLayer as refused:
        graph.model, graph.arrays = before.model, before.arrays
        return refused.message
    return ""


def assemble(solved: Solved, without: frozenset[str] = frozenset(), emitter: Emitter | None = None) -> Graph:
    """The base with all answers but those of the layers named."""
    graph = solved.base.copy()
    by_name = {layer.name: layer for layer in solved.base.layers()}
    for layer, result in solved.results.items():
        if layer.name not in without:
            others = [by_name[name] for name in layer.shared if name in by_name]
            put(graph, layer, others, result, emitter or _default_emitter())
    graph.drop_unused()
    return graph


def _with_shared(base: Graph, layers: Sequence[Layer]) -> list[Layer]:
    wanted = {layer.name for layer in layers} | {name for layer in layers for name in layer.shared}
    return [layer for layer in base.layers() if layer.name in wanted]


def _default_emitter() -> Emitter:
    emitter: Emitter = importlib.import_module("tidemill.compress.emit").emit
    return emitter


# -- tasks -------------------------------------------------------------------------------------------------------------


def _tasks(
    base: Graph, layer: Layer, captured: Sequence[Captured], options: Mapping[str, Any], settings: Settings
) -> list[LayerTask]:
    """One for each group."""
    weight, bias = base.weight(layer), base.bias(layer)
    rows = layer.shape[0]
    tasks = []
    for group, each in enumerate(captured):
        part = slice(group * rows, (group + 1) * rows)
        wanted, shift = weight[part], None if bias is None else bias[part]
        if settings.corrects:
            wanted, shift = correct.target(wanted, shift, each)
        name = layer.name if layer.groups == 1 else f"{layer.name}[{group}]"
        seed = (settings.seed + zlib.crc32(name.encode())) & 0x7FFFFFFF
        tasks.append(LayerTask(name, wanted, shift, each.fit, each.held, seed, dict(options)))
    return tasks


def _solve(pool: Executor, solver: Solver, tasks: Mapping[str, list[LayerTask]]) -> Iterator[tuple[str, Answer]]:
    """As they come."""
    futures: dict[Future[Answer], str] = {pool.submit(solve, solver, each): name for name, each in tasks.items()}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as broken:
        raise EngineFailed(
            f"a process that solved one of {', '.join(tasks)} died, most likely for want of memory; run again"
            " with fewer jobs: finished layers are kept"
        ) from broken
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def _pool(settings: Settings) -> Iterator[Callable[[], Executor]]:
    """The executor, made when it is first asked for."""
    made: list[Executor] = []

    def get() -> Executor:
        if settings.executor is not None:
            return settings.executor
        if not made:
            jobs = settings.jobs or len(os.sched_getaffinity(0))
            # Spawned and not forked: the parent has threads of BLAS and onnxruntime.
            context = multiprocessing.get_context("spawn")
            made.append(ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread.keep))
        return made[0]

    try:
        yield get
    finally:
        for pool in made:
            pool.shutdown(wait=True, cancel_futures=True)


# -- digests -----------------------------------------------------------------------------------------------------------


def _digest(
    base: Graph,
    data: str,
    solver: Solver,
    options: Mapping[str, Any],
    settings: Settings,
    todo: Sequence[Stage],
) -> str:
    """Of all that decides the answers."""
    found = hashlib.sha256()
    for piece in proto_stream.chunks(base.model, base.arrays):
        found.update(piece)
    names = [[layer.name for layer in stage.layers] for stage in todo]
    words = [
        tidemill.__version__,
        data,
        _fingerprint(solver),
        dict(sorted(options.items())),
        settings.seed,
        settings.sequential,
        settings.corrects,
        names,
    ]
    found.update(json.dumps(words, default=repr).encode())
    return found.hexdigest()


def _fingerprint(solver: Solver) -> str:
    """A solver's name, its values, and the source of the folder it is written in."""
    kind = type(solver)
    module = inspect.getmodule(kind)
    file = getattr(module, "__file__", None)
    source = source_digest(Path(file)) if file else hashlib.sha256().hexdigest()
    values = repr(solver) if "object at 0x" not in repr(solver) else ""
    return f"{kind.__module__}.{kind.__qualname__} {values} {source}"


def source_digest(own: Path) -> str:
    """Of the module `own`; of the whole package where it belongs to it."""
    source = hashlib.sha256()
    ours = Path(__file__).parent
    for path in sorted(ours.rglob("*.py")) if own.is_relative_to(ours) else [own]:
        source.update(path.read_bytes())
    return source.hexdigest()


def key(run: str, layer: str) -> str:
    """What an answer is kept under."""
    return hashlib.sha256(f"{run}|{layer}".encode()).hexdigest()[:40]


# -- words -------------------------------------------------------------------------------------------------------------


def _notes(todo: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(
        f"{name} shares its weights with {', '.join(each.name for each in others)}: solved once for all"
        for stage in todo
        for name, others in stage.shared.items()
    )


class Meter:
    """Tells the progress; the time left is by the work left, at the speed of the work that was really done."""

    def __init__(self, settings: Settings, todo: Sequence[Stage]) -> None:
        self._tell = settings.progress
        self._clock = settings.clock
        self._started = settings.clock()
        self._left = sum(stage.work for stage in todo)
        self._total = sum(len(stage.layers) for stage in todo)
        self._done = self._worked = 0
        self._current: tuple[Stage, bool] | None = None
        self._spent_s = 0.0
        self._since = self._started

    def at(self, stage: Stage, works: bool) -> None:
        """`stage` begins; whether there is work to do for it."""
        self._finish()
        self._current = (stage, works)
        self._say(stage.layers[0].name)

    def end(self) -> None:
        self._finish()
        self._say("done")

    def _finish(self) -> None:
        now = self._clock()
        if self._current is not None:
            stage, works = self._current
            self._left -= stage.work
            self._done += len(stage.layers)
            if works:
                self._worked += stage.work
                self._spent_s += now - self._since
        self._since = now

    def _say(self, what: str) -> None:
        if self._tell is not None:
            left_s = self._spent_s / self._worked * self._left if self._worked else None
            self._tell(Step(self._done, self._total, what, self._clock() - self._started, left_s))
