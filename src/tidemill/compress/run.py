"""A whole compression: read, check, capture and solve by the recipe's steps, judge, measure, refuse or publish.

Runs in the command line's process; layers are solved in processes of their own. Everything that can be known to be
wrong is said before work begins, and what was solved is kept in the job's work folder.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from tidemill import __version__
from tidemill.compress import data as sources
from tidemill.compress import engine_choice, pipeline, publish, report, rollback, workbench, workplace
from tidemill.compress.evaluate import Judge, Quality
from tidemill.compress.examples import examples
from tidemill.compress.figures import Figures, take
from tidemill.compress.graph import Graph
from tidemill.compress.hessian import MORE_DATA
from tidemill.compress.layers import Layer, reasons
from tidemill.compress.layers import LeftAlone as LayerLeft
from tidemill.compress.method import Outcome
from tidemill.compress.recipe import PlannedStep, Recipe, chosen
from tidemill.compress.report.facts import (
    DataFacts,
    LayerFacts,
    LeftAlone,
    MetricFacts,
    Peer,
    Report,
    TargetFacts,
    best_speeds,
)
from tidemill.compress.task import LayerResult
from tidemill.compress.workbench import Workbench
from tidemill.core.errors import InvalidRecipe, QualityLost
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Array, Signature
from tidemill.engine import onnx as engine
from tidemill.repository.lineage import Lineage, Loss, Measured, Origin, Rows, SpeedUp

Progress: TypeAlias = Callable[[str, int, int, float | None], None]
"""(what is being done, done, in all, seconds left or None)."""

BINS = 24
CLASS_NAMES = "labels.txt"
CLASS_NAMES_BYTES_MAX = 10_000_000
LIBRARIES = ("onnxruntime", "openvino", "numpy", "scipy", "torch")


@dataclass(frozen=True, slots=True)
class Job:
    """`data` is resolved: a path, or MODULE:FUNCTION; so is `held`, "" for none. `command` is what does it again.

    `executor` solves layers, and is left open; None makes `workers` processes. `engine` is one of
    `engine_choice.CHOICES`, to be noted in the package, or "".
    """

    of: ModelPackage
    repository: Path
    name: str
    recipe: Recipe
    steps: tuple[PlannedStep, ...]
    data: str
    held: str
    work: Path
    command: str
    workers: int
    measured: bool
    force: bool
    executor: Executor | None = None
    engine: str = ""


class Finished(msgspec.Struct, frozen=True):
    """A published model."""

    name: str
    version: int
    folder: Path
    report: Report


class Refused(msgspec.Struct, frozen=True):
    """A model that was not published; its report lies in `folder`, which stays until it is stale. `why` says by what it
    missed what was asked for."""

    outcome: str
    why: str
    folder: Path
    report: Report


class Done(msgspec.Struct, frozen=True):
    """At least one model is `finished`."""

    finished: list[Finished]
    refused: list[Refused]


@dataclass(slots=True)
class Candidate:
    """A finished model on its way to be published. `methods` tells which method made each layer what it is."""

    outcome: Outcome
    methods: dict[str, str]
    notes: tuple[str, ...]
    folder: Path
    quality: Quality | None = None
    engine: str = ""

    @property
    def path(self) -> Path:
        return self.folder / publish.MODEL_NAME

    def write(self, path: Path | str) -> None:
        """Copies what was judged and measured: no other bytes are published."""
        for file in (self.path, *publish.weights_files(self.path)):
            shutil.copyfile(file, Path(path).parent / file.name)


def compress(job: Job, progress: Progress) -> Done:
    """Carry `job` out. Raises `QualityLost` when no model that came out is as good, small and quick as was asked for;
    reports of what was refused then lie in the work folder. `WorkUnderWay` where another process has that folder,
    `DiskFull`."""
    with workplace.held(job.work):
        return _compress(job, progress)


def _compress(job: Job, progress: Progress) -> Done:
    started = time.time()
    progress("reading the model", 0, 0, None)
    original = Graph.read(job.of.path)
    for step in job.steps:
        chosen(step, original.layers(), reasons(original.left_alone()))
    opened = engine.load(job.of, job.workers)
    signature = opened.signature
    opened.close()
    progress("reading the data", 0, 0, None)
    tokenizer = job.of.path.with_name("tokenizer.json")
    classes = class_names(job.of.path.with_name(CLASS_NAMES))
    data = sources.load(
        job.data, signature, tokenizer if tokenizer.is_file() else None, _limits(job.recipe),
        held=job.held or None, classes=classes,
    )  # fmt: skip
    progress("judging the original", 0, 0, None)
    judge = Judge(job.of.path, data, job.recipe.metric, seed=job.recipe.seed, threads=job.workers)
    # What an earlier run of the same work was refused for need not be true of this one.
    shutil.rmtree(job.work / workplace.REFUSED, ignore_errors=True)
    candidates = _carry_out(job, original, data, judge, progress)
    for each in candidates:
        progress(f"judging {each.outcome.name or job.name}", 0, 0, None)
        each.folder.mkdir(parents=True, exist_ok=True)
        each.outcome.graph.write(each.path)
        each.quality = judge.quality(each.path)
    facts = _Facts(job, original, signature, data, judge, classes, started, candidates)
    done = Done([], [])
    for each in candidates:
        told = facts.report(each, progress)
        if told.met:
            done.finished.append(_published(job, each, told, several=len(candidates) > 1))
        else:
            folder = job.work / workplace.REFUSED / (each.outcome.name or job.name)
            report.write(told, folder)
            done.refused.append(Refused(each.outcome.name, _missed(told), folder, told))
        shutil.rmtree(each.folder, ignore_errors=True)
    if not done.finished:
        raise QualityLost(_refusal(done.refused) + _no_rollback(job))
    return done


def class_names(path: Path) -> tuple[str, ...]:
    """The lines of a file `labels.txt` beside the model, where there is one."""
    if not path.is_file() or path.stat().st_size > CLASS_NAMES_BYTES_MAX:
        return ()
    return tuple(line.strip() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip())


def _limits(recipe: Recipe) -> sources.Limits:
    reading = recipe.reading
    return sources.Limits(
        rows_max=reading.rows, held_max=reading.held_rows, held=reading.held_share, batch=reading.batch,
        tokens_max=reading.tokens, seed=recipe.seed, mean=reading.mean, deviation=reading.deviation,
    )  # fmt: skip


def _published(job: Job, candidate: Candidate, told: Report, several: bool) -> Finished:
    name = f"{job.name}-{candidate.outcome.name}" if several and candidate.outcome.name else job.name
    last = told

    def write_report(folder: Path, number: int, model: Path) -> None:
        nonlocal last
        last = msgspec.structs.replace(told, name=name, version=number)
        report.write(last, folder)

    number, folder = publish.publish(
        job.repository, name, job.of, candidate, _lineage(told), write_report, job.force,
        candidate.engine,
    )  # fmt: skip
    return Finished(name, number, folder, last)


def _missed(told: Report) -> str:
    metric = told.metric
    wants = [] if metric.met else [f"keeps {metric.kept:.4f} of {metric.name}, asked were {metric.keep}"]
    for target in told.targets:
        if not target.met:
            got = "not measured" if target.got is None else f"{target.got:.3f}"
            wants.append(f"{target.name} is {got}, at most {target.wanted} was asked")
    return "; ".join(wants)


def _refusal(refused: Sequence[Refused]) -> str:
    said = [
        f"{f'{each.outcome}: ' if each.outcome and len(refused) > 1 else ''}{each.why}"
        f" (report: {each.folder / 'report.html'})"
        for each in refused
    ]
    return "nothing was published: " + " | ".join(said)


def _no_rollback(job: Job) -> str:
    """Why no layers went back, where one might have thought they would."""
    stiff = [step.method.name for step in job.steps if step.method.run is not None and not step.method.rolls_back]
    if job.recipe.keep is None or not job.recipe.rollback or not stiff:
        return ""
    return f"; {' and '.join(dict.fromkeys(stiff))} gives no layer its own weights back: ask it for less by its options"


def _few_rows(layers: Mapping[str, LayerResult]) -> tuple[str, ...]:
    """One sentence for the whole report about layers that learned from too few rows."""
    said = {name: note for name, result in layers.items() for note in result.notes if note.endswith(MORE_DATA)}
    if not said:
        return ()
    name, note = next(iter(said.items()))
    return (f"{len(said)} of {len(layers)} layers learned from too few rows; {name}: {note} (--data, --rows)",)


def _lineage(told: Report) -> Lineage:
    metric = told.metric
    return Lineage(
        of=told.before,
        recipe=told.recipe,
        seed=told.seed,
        data=Rows(told.data.source, told.data.sha256, told.data.fit_rows, told.data.held_rows),
        loss=Loss(metric.name, metric.before, metric.after, metric.difference, metric.kept, metric.keep),
        created_at=told.created_at,
        tidemill=told.tidemill,
        outcome=told.outcome,
        speed=tuple(SpeedUp(each.shape, each.engine, each.ratio.mean) for each in best_speeds(told.speeds)),
    )  # fmt: skip


def _carry_out(job: Job, original: Graph, data: sources.Data, judge: Judge, progress: Progress) -> list[Candidate]:
    """The steps one after the other; the last one may give several models."""
    current = original
    layers: dict[str, LayerResult] = {}
    methods: dict[str, str] = {}
    notes: list[str] = []
    left: tuple[LayerLeft, ...] = ()
    for number, step in enumerate(job.steps, 1):
        outcomes = _step(job, step, number, original, current, data, judge, progress)
        candidates = [
            Candidate(
                replace(outcome, layers=_joined(layers, outcome.layers), left=(*left, *outcome.left)),
                {**methods, **{name: _after(methods.get(name), step.method.name) for name in outcome.layers}},
                (*notes, *outcome.notes),
                job.work / "models" / (outcome.name or "model"),
            )
            for outcome in outcomes
        ]
        if number < len(job.steps):
            if len(candidates) != 1:
                raise InvalidRecipe(
                    f"{step.place}.method {step.method.name!r} gave {len(candidates)} models, and a step follows it;"
                    " make it the last one"
                )
            (only,) = candidates
            current, left = only.outcome.graph, only.outcome.left
            layers, methods, notes = dict(only.outcome.layers), only.methods, list(only.notes)
    return candidates


def _joined(earlier: Mapping[str, LayerResult], later: Mapping[str, LayerResult]) -> dict[str, LayerResult]:
    """A layer that several steps changed is as the last one left it, with the notes of all."""
    both = {
        name: replace(result, notes=tuple(dict.fromkeys((*earlier[name].notes, *result.notes))))
        for name, result in later.items()
        if name in earlier
    }
    return {**earlier, **later, **both}


def _after(earlier: str | None, method: str) -> str:
    return method if earlier is None else f"{earlier} + {method}"


def _step(
    job: Job, step: PlannedStep, number: int, original: Graph, current: Graph, data: sources.Data, judge: Judge,
    progress: Progress,
) -> list[Outcome]:  # fmt: skip
    names = {layer.name for layer in chosen(step, current.layers(), reasons(current.left_alone()))}
    label = step.method.name if len(job.steps) == 1 else f"step {number} of {len(job.steps)}, {step.method.name}"

    def tell(at: pipeline.Step) -> None:
        progress(label, at.done, at.total, at.left_s)

    tell(pipeline.Step(0, len(names), "", 0.0, None))
    settings = pipeline.Settings(
        work=job.work, seed=job.recipe.seed, jobs=job.workers, threads=job.workers, executor=job.executor, progress=tell
    )
    bench = Workbench(original, current, data, settings, judge, lambda layer: layer.name in names)
    keep = job.recipe.keep if job.recipe.rollback else None
    if step.method.run is not None:
        outcomes = step.method.run(bench, step.options)
        if keep is None or not step.method.rolls_back or len(outcomes) != 1:
            return outcomes
        progress("judging", 0, 0, None)
        return [rollback.leaving_out(outcomes[0], lambda out: _without(bench, step, out), bench.kept, keep)]
    assert step.method.solver is not None  # noqa: S101 - one of both is there
    solved = bench.solve(step.method.solver, step.options)
    if keep is None:
        return [workbench.outcome(solved)]
    progress("judging, layer by layer" if len(solved.results) > 1 else "judging", 0, 0, None)
    try:
        kept = rollback.meet(solved, bench.kept, keep)
    except QualityLost as lost:
        # The gate refuses it with a report, which tells more than a sentence does.
        return [replace(workbench.outcome(solved), notes=(*workbench.outcome(solved).notes, lost.message))]
    return [workbench.outcome(solved, kept.graph, kept.reverted)]


def _without(bench: Workbench, step: PlannedStep, out: frozenset[str]) -> Outcome:
    """The step's method again, on all its layers but those of `out` and those that share their weights."""
    gone = out | {name for layer in bench.layers() if layer.name in out for name in layer.shared}
    names = {layer.name for layer in bench.layers()} - gone
    if not names:
        raise InvalidRecipe(f"{step.place}: no layer is left")
    assert step.method.run is not None  # noqa: S101 - whoever calls this has called it
    (outcome,) = step.method.run(replace(bench, match=lambda layer: layer.name in names), step.options)
    return outcome


class _Facts:
    """What the reports of one run share."""

    def __init__(
        self, job: Job, original: Graph, signature: Signature, data: sources.Data, judge: Judge,
        classes: Sequence[str], started: float, candidates: Sequence[Candidate],
    ) -> None:  # fmt: skip
        self._job, self._original, self._data, self._judge = job, original, data, judge
        self._signature, self._classes, self._started = signature, classes, started
        self._before = Origin(
            job.of.name,
            job.of.version,
            publish.model_digest(job.of.path),
            publish.model_bytes(job.of.path),
            job.of.source,
        )
        held = f", held out {job.recipe.held}" if job.recipe.held else ""
        self._data_facts = DataFacts(
            f"{job.recipe.data}{held}", data.sha256(), len(data.fit), len(data.held), data.notes
        )
        self._peers = tuple(
            Peer(each.outcome.name, publish.model_bytes(each.path), each.quality.mean)
            for each in candidates
            if len(candidates) > 1 and each.quality is not None
        )

    def report(self, candidate: Candidate, progress: Progress) -> Report:
        job, judge = self._job, self._judge
        assert candidate.quality is not None  # noqa: S101 - it was judged before
        compared = judge.compare(candidate.quality)
        bins = histogram(candidate.quality.per_row)
        figures = Figures()
        if job.measured:
            figures = take(
                job.of.path, candidate.path, self._data, self._signature, job.recipe.shapes, job.workers,
                lambda said: progress(said, 0, 0, None),
            )  # fmt: skip
        candidate.engine = engine_choice.chosen(job.engine, figures.speeds, figures.agree)
        noted = (f"tidemill.toml names the engine {candidate.engine}",) if candidate.engine else ()
        size = publish.model_bytes(candidate.path)
        slowest = max((each.ratio.mean for each in best_speeds(figures.speeds)), default=None)
        wanted = job.recipe.targets
        targets = [
            TargetFacts(name, share, got)
            for name, share, got in (
                ("size", wanted.size, size / self._before.size_bytes),
                ("time", wanted.time, slowest),
            )
            if share is not None
        ]
        return Report(
            name=job.name,
            version=0,
            created_at=time.time(),
            tidemill=__version__,
            machine=machine(),
            command=job.command,
            seed=job.recipe.seed,
            recipe=carried_out(job),
            before=self._before,
            after=Origin(job.name, 0, publish.model_digest(candidate.path), size),
            data=self._data_facts,
            metric=MetricFacts(
                judge.metric.name, _interval(judge.base), _interval(candidate.quality),
                Measured(compared.difference, compared.low, compared.high), compared.kept, job.recipe.keep, *bins,
            ),
            outcome=candidate.outcome.name,
            spent_s=time.time() - self._started,
            rss_bytes_max=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            footprints=figures.footprints,
            speeds=figures.speeds,
            layers=layer_facts(self._original.layers(), candidate),
            left_alone=left_alone(self._original, candidate.outcome.left),
            examples=examples(
                self._data.held.examples, judge.reference, judge.outputs(candidate.path), candidate.quality.per_row,
                self._data.labels, self._classes,
            ),
            targets=tuple(targets),
            peers=self._peers,
            notes=(
                *_few_rows(candidate.outcome.layers), *dict.fromkeys(candidate.notes), *figures.notes, *noted,
            ),
        )  # fmt: skip


def carried_out(job: Job) -> dict[str, Any]:
    """The recipe with every option's value."""
    recipe: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(job.recipe))
    recipe["steps"] = [
        {"method": step.method.name, "options": dict(step.options), "match": list(step.match), "skip": list(step.skip)}
        for step in job.steps
    ]
    return {name: value for name, value in recipe.items() if value not in (None, "", [])}


def histogram(values: Array) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Counts over evenly spaced edges; nothing where there are but two values, such as right and wrong."""
    if len(np.unique(values)) < 3:
        return (), ()
    counts, edges = np.histogram(values, BINS)
    return tuple(counts.tolist()), tuple(edges.tolist())


def layer_facts(layers: Sequence[Layer], candidate: Candidate) -> tuple[LayerFacts, ...]:
    """What became of each layer that a solver gave a result for, in the model's order."""
    found = []
    for layer in layers:
        result = candidate.outcome.layers.get(layer.name)
        if result is None:
            continue
        weight = result.form.decode()
        found.append(
            LayerFacts(
                name=layer.name, op=layer.op, method=candidate.methods.get(layer.name, ""),
                shape=(layer.groups * layer.shape[0], layer.shape[1]), size_bytes_before=layer.size * 4,
                size_bytes_after=result.form.size_bytes, bits=result.form.size_bytes * 8 / max(layer.size, 1),
                density=float(np.count_nonzero(weight)) / max(layer.size, 1), error_fit=_number(result.error_fit),
                error_held=_number(result.error_held), damping=result.damping, notes=tuple(result.notes),
            )
        )  # fmt: skip
    return tuple(found)


def left_alone(original: Graph, left: Sequence[LayerLeft]) -> tuple[LeftAlone, ...]:
    """What stayed as it was, by the graph and by the steps' own words."""
    found: dict[str, LeftAlone] = {}
    for each in (*original.left_alone(), *left):
        found.setdefault(each.node, LeftAlone(each.node, each.op, each.reason))
    return tuple(found.values())


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(quality: Quality) -> Measured:
    return Measured(quality.mean, quality.low, quality.high)


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    found = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores of it usable",
        "system": f"{platform.system()} {platform.release()}",
    }
    libraries = []
    for library in LIBRARIES:
        try:
            libraries.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return {**found, "libraries": ", ".join(libraries)}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
