"""Fits `co2-forecast`, a small forecaster of carbon dioxide in the air, and writes it as ONNX; any process.

The series is Mauna Loa's, a value a week from 1958 to 2001 (Keeling, Whorf, 2004; public domain). The model is a ridge
regression (Hoerl and Kennard, 1970): from how the last two years lie above the newest value to how the next one will.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from tidemill.core.tensor import Array
from tidemill.kit.fetch import Progress, silent

SEEN: Final = 104
"""Weeks that the model looks at."""
AHEAD: Final = 52
FITTED: Final = 1650
"""Weeks that the model learns from; the last twelve years are held out."""
RIDGE: Final = 100.0

_OPSET = 17
_IR_VERSION = 8


class Series(NamedTuple):
    """`dates` as the file has them, YYYYMMDD; `values` FP64 in parts per million, none missing."""

    dates: list[str]
    values: Array


class Errors(NamedTuple):
    """Mean absolute errors over all forecasts of the held-out years, in parts per million: of the model, of the same
    week last year, and of that with last year's rise on top."""

    model: float
    naive: float
    naive_with_rise: float


def build(progress: Progress = silent) -> Mapping[str, bytes]:
    """`model.onnx`, and `sample.csv` with the last weeks that were learnt from. Raises `FetchFailed`."""
    from tidemill.kit.datasets import data

    whole = series(data("co2", progress).read_bytes())
    weights, offset = fitted(whole.values[:FITTED])
    rows = zip(whole.dates[FITTED - SEEN : FITTED], whole.values[FITTED - SEEN : FITTED], strict=True)
    sample = "date,co2\n" + "".join(f"{date},{value:.1f}\n" for date, value in rows)
    return {"model.onnx": _onnx(weights, offset), "sample.csv": sample.encode()}


def series(file: bytes) -> Series:
    """What `co2.csv` holds, with the weeks without a value filled in between their neighbours."""
    rows = list(csv.DictReader(io.StringIO(file.decode())))
    values = np.array([float(row["co2"] or "nan") for row in rows])
    gone, places = np.isnan(values), np.arange(len(values))
    values[gone] = np.interp(places[gone], places[~gone], values[~gone])
    return Series([row["date"] for row in rows], values)


def fitted(values: Array) -> tuple[Array, Array]:
    """FP32 [SEEN, AHEAD] and [AHEAD], from every stretch of `values`."""
    before, after = _stretches(values)
    known = np.concatenate([before - before[:, -1:], np.ones((len(before), 1))], axis=1)
    penalty = RIDGE * np.diag([1.0] * SEEN + [0.0])
    found = np.linalg.solve(known.T @ known + penalty, known.T @ (after - before[:, -1:]))
    return found[:-1].astype(np.float32), found[-1].astype(np.float32)


def measured(values: Array) -> Errors:
    """What a model that was fitted to the first `FITTED` weeks makes of the others."""
    weights, offset = fitted(values[:FITTED])
    before, after = _stretches(values[FITTED - SEEN :])
    last = before[:, -1:]
    naive = before[:, -AHEAD:]
    rise = naive.mean(axis=1) - before[:, -2 * AHEAD : -AHEAD].mean(axis=1)
    guesses = ((before - last) @ weights + offset + last, naive, naive + rise[:, np.newaxis])
    return Errors(*(float(np.abs(guess - after).mean()) for guess in guesses))


def _stretches(values: Array) -> tuple[Array, Array]:
    """Every SEEN weeks, and the AHEAD weeks behind them."""
    windows = np.lib.stride_tricks.sliding_window_view(values, SEEN + AHEAD)
    return windows[:, :SEEN], windows[:, SEEN:]


def _onnx(weights: Array, offset: Array) -> bytes:
    """float32 `series` [N, SEEN] gives float32 `forecast` [N, AHEAD]."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "weights": weights, "offset": offset, "last": np.array([-1], np.int64), "end": np.array([2**31 - 1], np.int64),
        "axis": np.array([1], np.int64),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["series", "last", "end", "axis"], ["newest"], name="newest"),
            helper.make_node("Sub", ["series", "newest"], ["above"], name="above"),
            helper.make_node("MatMul", ["above", "weights"], ["change"], name="change"),
            helper.make_node("Add", ["change", "offset"], ["moved"], name="moved"),
            helper.make_node("Add", ["moved", "newest"], ["forecast"], name="forecast"),
        ],
        "co2-forecast",
        [helper.make_tensor_value_info("series", TensorProto.FLOAT, ["batch", SEEN])],
        [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["batch", AHEAD])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return bytes(helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[opset]).SerializeToString())
