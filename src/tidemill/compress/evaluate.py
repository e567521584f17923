"""How good a model is over the rows held out, alone and against another; in the command line's process.

Intervals are of the bootstrap over rows (Efron, 1979): 95 %, by percentiles. Two models are compared over the same
draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import onnxruntime as ort

from tidemill.compress.data import Data, Rows
from tidemill.compress.metrics import Metric, MetricCall, Statistic, mean_of, metric
from tidemill.core.errors import BadData, MetricFailed, RefusedModel, TidemillError
from tidemill.core.tensor import Array, Tensors
from tidemill.engine.onnx import ORT_FAILURES, first_line

DRAWS: Final = 1_000
_BLOCK_ELEMENTS = 2**22
_PAIRED_ELEMENTS_MAX = 2**27


class HasSession(Protocol):
    """What `Graph` is to the evaluation."""

    def session(self, outputs: Sequence[str] | None = None, threads: int = 2) -> Any: ...


Model: TypeAlias = HasSession | Path | str | bytes | ort.InferenceSession


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """`mean` is the metric over all rows (for Pearson's correlation it is no mean), between `low` and `high` at 95 %.

    `per_row` is in the order of the rows held out. `evidence` is what the metric is made of over any draw of rows.
    """

    metric: str
    mean: float
    low: float
    high: float
    per_row: Array
    evidence: Array = field(repr=False)
    statistic: Statistic = field(default=mean_of, repr=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`difference` is other minus base, `kept` other over base; both with the 95 % interval over the same draws.

    `kept` is 1 where both are 0.
    """

    difference: float
    low: float
    high: float
    kept: float
    kept_low: float
    kept_high: float


class Judge:
    """Judges models by one metric over the rows held out in `data`, against `original`, which is run only once.

    `metric` is a name, "module:function", or a function. Raises `BadData`, `MetricFailed`, `RefusedModel`.
    """

    def __init__(
        self,
        original: Model,
        data: Data,
        name: str | MetricCall = "",
        *,
        seed: int = 0,
        threads: int = 2,
    ) -> None:
        self.metric = metric(name, data.labels)
        self._data, self._seed, self._threads = data, seed, threads
        session = _session(original, threads)
        self._names = None if self.metric.every_output else (answering(session),)
        self._reference = run(session, data.held, self._names)
        self.base = self._judged(self._reference)

    def quality(self, model: Model) -> Quality:
        return self._judged(self.outputs(model))

    def outputs(self, model: Model) -> Tensors:
        """What the metric sees of `model`."""
        return run(_session(model, self._threads), self._data.held, self._names)

    @property
    def reference(self) -> Tensors:
        """What the metric sees of the original."""
        return self._reference

    def compare(self, other: Quality) -> Comparison:
        return compare(self.base, other, self._seed)

    def _judged(self, outputs: Tensors) -> Quality:
        per_row = measured(self.metric, outputs, self._reference, self._data.labels, len(self._data.held))
        gather = self.metric.gather
        evidence = per_row if gather is None else gather(outputs, self._reference, self._data.labels)
        whole = float(self.metric.statistic(evidence, np.arange(len(per_row))[np.newaxis])[0])
        drawn = _drawn(evidence, self.metric.statistic, len(per_row), self._seed)
        low, high = np.percentile(drawn, (2.5, 97.5))
        return Quality(self.metric.name, whole, float(low), float(high), per_row, evidence, self.metric.statistic)


def quality(
    model: Model,
    data: Data,
    name: str | MetricCall = "",
    *,
    original: Model | None = None,
    seed: int = 0,
    threads: int = 2,
) -> Quality:
    """Of one model; what is told against `original` is told against itself where there is none. See `Judge`."""
    judge = Judge(model if original is None else original, data, name, seed=seed, threads=threads)
    return judge.base if original is None else judge.quality(model)


def compare(base: Quality, other: Quality, seed: int = 0) -> Comparison:
    """Raises `BadData` for two that were not judged over the same rows by the same metric."""
    rows = len(base.per_row)
    if base.metric != other.metric or rows != len(other.per_row):
        raise BadData(
            f"{base.metric} over {rows} rows cannot be compared with {other.metric} over {len(other.per_row)}"
        )
    before = _drawn(base.evidence, base.statistic, rows, seed)
    after = _drawn(other.evidence, other.statistic, rows, seed)
    low, high = np.percentile(after - before, (2.5, 97.5))
    kept_low, kept_high = np.percentile([_share(*pair) for pair in zip(before, after, strict=True)], (2.5, 97.5))
    return Comparison(
        other.mean - base.mean,
        float(low),
        float(high),
        _share(base.mean, other.mean),
        float(kept_low),
        float(kept_high),
    )


def _share(before: float, after: float) -> float:
    if before == 0:
        return 1.0 if after >= 0 else 0.0
    return float(after / before)


def _drawn(evidence: Array, statistic: Statistic, rows: int, seed: int) -> Array:
    """The metric over many draws of as many rows, with replacement: the same draws for the same seed."""
    chance = np.random.default_rng(seed)
    each = rows if statistic is mean_of else rows * rows
    draws = DRAWS if statistic is mean_of else max(100, min(DRAWS, _PAIRED_ELEMENTS_MAX // each))
    block = max(1, min(draws, _BLOCK_ELEMENTS // rows))
    found = []
    for start in range(0, draws, block):
        places = chance.integers(0, rows, (min(block, draws - start), rows))
        found.append(statistic(evidence, places))
    return np.concatenate(found)


def measured(by: Metric, outputs: Tensors, reference: Tensors, labels: Array | None, rows: int) -> Array:
    """A finite float64 for each row. Raises `MetricFailed`."""
    try:
        found = by.call(outputs, reference, labels)
        per_row = np.asarray(found, np.float64)
    except TidemillError:
        raise
    except Exception as error:  # a metric may be the user's own code
        raise MetricFailed(f"the metric {by.name} raised {type(error).__name__}: {error}") from error
    if per_row.shape != (rows,):
        raise MetricFailed(f"the metric {by.name} gave shape {list(per_row.shape)}, expected [{rows}]: a number a row")
    if not np.isfinite(per_row).all():
        place = int(np.flatnonzero(~np.isfinite(per_row))[0])
        raise MetricFailed(f"the metric {by.name} gave {per_row[place]} for row {place}; the model may have overflowed")
    return per_row


# -- running -----------------------------------------------------------------------------------------------------------


def _session(model: Model, threads: int) -> Any:
    if isinstance(model, ort.InferenceSession):
        return model
    if not isinstance(model, Path | str | bytes):
        return model.session(threads=threads)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        source = model if isinstance(model, bytes) else str(model)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except ORT_FAILURES as error:
        raise RefusedModel(f"onnxruntime cannot run this model: {first_line(error)}") from error


def answering(session: Any) -> str:
    """The output that answers: the only one, one that is called so, or the first of a row of numbers."""
    found = session.get_outputs()
    for each in found:
        if each.name in ("logits", "sentence_embedding", "embeddings"):
            return str(each.name)
    flat = [each for each in found if each.shape is not None and len(each.shape) == 2]
    return str((flat or found)[0].name)


def run(session: Any, rows: Rows, names: Sequence[str] | None = None) -> dict[str, Array]:
    """Outputs over all `rows`, dimension 0 being the rows. Where a text is padded, an output [rows, tokens, ...] is 0.

    Raises `BadData` for a row that the model does not take.
    """
    names = tuple(names or (each.name for each in session.get_outputs()))
    parts: dict[str, list[Array]] = {name: [] for name in names}
    done = 0
    for feeds in rows:
        try:
            found = session.run(list(names), feeds)
        except ORT_FAILURES as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise BadData(f"the model does not take the batch at row {done}, {shapes}: {first_line(error)}") from error
        present = feeds[rows.present] if rows.present else None
        count = len(next(iter(feeds.values()))) if rows.batch else 1
        for name, array in zip(names, found, strict=True):
            parts[name].append(_row_first(_without_padding(np.asarray(array), present), count, rows.batch, name))
        done += count
    return {name: _joined(arrays) for name, arrays in parts.items()}


def _row_first(array: Array, count: int, batch: int, name: str) -> Array:
    if not batch:
        return array[np.newaxis]
    if not array.ndim or len(array) != count:
        raise BadData(
            f"output {name!r} has shape {list(array.shape)} for {count} rows; its dimension 0 must count rows"
        )
    return array


def _without_padding(array: Array, present: Array | None) -> Array:
    if present is None or array.ndim < 3 or array.shape[:2] != present.shape or array.dtype.kind != "f":
        return array
    kept = (present != 0).reshape(*present.shape, *(1 for _ in array.shape[2:]))
    return np.where(kept, array, array.dtype.type(0))


def _joined(arrays: Sequence[Array]) -> Array:
    """One after the other; what is shorter is filled with zeros."""
    sizes = {array.shape[1:] for array in arrays}
    if len(sizes) > 1:
        if len({len(size) for size in sizes}) > 1 or arrays[0].dtype == object:
            raise BadData(f"the outputs of batches differ in their shape: {sorted(map(list, sizes))[:4]}")
        whole = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [
            np.pad(array, [(0, 0), *((0, int(to) - size) for to, size in zip(whole, array.shape[1:], strict=True))])
            for array in arrays
        ]
    return np.concatenate(arrays)


__all__ = ["Comparison", "Judge", "Model", "Quality", "answering", "compare", "quality", "run"]
