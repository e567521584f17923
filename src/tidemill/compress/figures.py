"""Takes a report's figures of time and memory: of the original and of the result, in each engine there is.

Runs in the command line's process; what is timed runs in processes of its own (`measure.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from tidemill.compress import measure
from tidemill.compress.data import Data
from tidemill.compress.measure import Latency
from tidemill.compress.report.facts import Footprint, Speed
from tidemill.core import registry
from tidemill.core.errors import MissingPart, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Array, Signature, Tensors
from tidemill.repository.lineage import Measured

TEXT_SHAPES = ((1, 16), (8, 128))
ROW_SHAPES = ((1, 1), (16, 1))
AGREES = 0.99
BATCHES_COMPARED = 4
BEFORE, AFTER = "before", "after"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """`notes` are sentences for the report: what could not be measured, and whether engines agree; `agree` is False
    where they were seen not to."""

    speeds: tuple[Speed, ...] = ()
    footprints: tuple[Footprint, ...] = ()
    notes: tuple[str, ...] = ()
    agree: bool = True


def take(
    before: Path,
    after: Path,
    data: Data,
    signature: Signature,
    shapes: Sequence[tuple[int, int]],
    threads: int,
    tell: Tell = lambda said: None,
) -> Figures:
    """Both models in onnxruntime, and in OpenVINO where it is there; `shapes` are (rows, length), none: usual ones."""
    engines = [each for each in measure.ENGINES if each == "onnxruntime" or find_spec(each) is not None]
    feeds = timed_feeds(data, signature, shapes)
    notes: list[str] = []
    tell("measuring times")
    found = measure.latency({BEFORE: before, AFTER: after}, feeds, engines, threads)
    speeds = _speeds(found, notes)
    footprints = []
    for engine in engines:
        tell(f"measuring memory, {engine}")
        smallest = [next(iter(feeds.values()))]
        pair = [measure.footprint(path, engine, smallest, threads) for path in (before, after)]
        notes += [f"memory of the model {when} in {engine} could not be measured: {each.reason}"
                  for when, each in zip((BEFORE, AFTER), pair, strict=True) if each.reason]  # fmt: skip
        one, other = pair
        footprints.append(
            Footprint(engine, one.private_bytes_needed, other.private_bytes_needed, one.load_s, other.load_s)
        )
    agree = True
    if "openvino" in engines:
        tell("comparing the engines")
        agree, said = _agreement(after, data, threads)
        notes += said
    return Figures(tuple(speeds), tuple(footprints), tuple(dict.fromkeys(notes)), agree)


def timed_feeds(data: Data, signature: Signature, shapes: Sequence[tuple[int, int]]) -> dict[str, dict[str, Array]]:
    """What to call the models with, by its words ("8 × 128", "16 rows"), made of held-out rows. A model of fixed size,
    or without a batch dimension, is called as it can be."""
    held = data.held
    if not held.batch:
        return {"one call": dict(held.rows[0])}
    first = next(iter(held))
    if any(spec.shape and spec.shape[0] != -1 for spec in signature.inputs):
        count = len(next(iter(first.values())))
        return {_rows(count): first}
    found = {}
    fixed = [
        spec.shape[1] for spec in signature.inputs if spec.name in held.pads and spec.shape and spec.shape[1] != -1
    ]
    for rows, asked in shapes or (TEXT_SHAPES if held.pads else ROW_SHAPES):
        length = fixed[0] if fixed else asked
        chosen = [held.rows[at % len(held.rows)] for at in range(rows)]
        if held.pads:
            words = f"{rows} × {length}"
        else:
            words = _rows(rows)
            chosen = [row for row in chosen if _alike(row, chosen[0])]
            chosen = [chosen[at % len(chosen)] for at in range(rows)]
        found[words] = {
            name: np.stack([np.resize(row[name], length) if name in held.pads else row[name] for row in chosen])
            for name in chosen[0]
        }
    return found


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _alike(row: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return all(row[name].shape == other[name].shape for name in row)


def _speeds(found: Sequence[Latency], notes: list[str]) -> list[Speed]:
    speeds = []
    known = {(each.engine, each.feeds, each.model): each for each in found}
    for engine, shape in dict.fromkeys((each.engine, each.feeds) for each in found):
        one, other = known[engine, shape, BEFORE], known[engine, shape, AFTER]
        notes += [
            f"the time of the model {each.model} in {engine} could not be measured: {each.reason}"
            for each in (one, other)
            if each.reason
        ]
        if one.wall_ms is None or other.wall_ms is None or one.wall_ratio is None or other.wall_ratio is None:
            continue
        # Both ratios are to one and the same call, round by round; their quotient is after's to before's.
        base = one.wall_ratio[0]
        middle, low, high = (value / base for value in other.wall_ratio)
        speeds.append(Speed(engine, shape, one.wall_ms, other.wall_ms, Measured(middle, low, high), base))
    order = list(dict.fromkeys(each.feeds for each in found))
    return sorted(speeds, key=lambda speed: order.index(speed.shape))


def _agreement(model: Path, data: Data, threads: int) -> tuple[bool, list[str]]:
    """Engines were once found to disagree on a model: what is judged in one may be served by the other."""
    package = ModelPackage(model.stem, 1, model, "onnx", model.stat().st_size)
    likeness: list[float] = []
    try:
        one, other = (registry.load(f"engine.{name}")(package, threads) for name in ("onnx", "openvino"))
        for feeds in islice(data.held, BATCHES_COMPARED):
            ours, theirs = one.predict(feeds, ()), other.predict(feeds, ())
            likeness += [_cosine(ours, theirs)]
    except MissingPart:
        return True, []
    except TidemillError as error:
        return False, [f"OpenVINO does not run the result: {error.message}"]
    least = min(likeness)
    if least < AGREES:
        said = f"OpenVINO and onnxruntime disagree on the result (cosine {least:.4f}): serve it with the engine onnx"
        return False, [said]
    return True, [f"OpenVINO and onnxruntime agree on the result: cosine {least:.5f} or more on held-out rows"]


def _cosine(ours: Tensors, theirs: Tensors) -> float:
    """Over all outputs of numbers; the least."""
    found = [1.0]
    for name, array in ours.items():
        if array.dtype.kind != "f":
            continue
        one, other = (np.asarray(each, np.float64).ravel() for each in (array, theirs[name]))
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        same = np.array_equal(one, other)
        found.append(1.0 if same else float(one @ other) / lengths if lengths else 0.0)
    return min(found)
