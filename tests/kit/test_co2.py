from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from needs import ROOT
from tidemill.kit import co2, datasets


@pytest.fixture(scope="session")
def values() -> co2.Series:
    return co2.series(datasets.data("co2").read_bytes())


def test_every_week_has_a_value(values: co2.Series) -> None:
    assert len(values.dates) == len(values.values) == 2284
    assert (values.dates[0], values.dates[-1]) == ("19580329", "20011229")
    assert np.isfinite(values.values).all()


def test_on_years_it_never_saw_it_is_better_than_last_year_again(values: co2.Series) -> None:
    errors = co2.measured(values.values)
    assert errors.model < 0.7 * errors.naive_with_rise < errors.naive_with_rise < errors.naive


def test_the_page_tells_the_errors_that_are_measured(values: co2.Series) -> None:
    told = re.search(r"(\d\.\d\d) ppm.*?(\d\.\d\d).*?(\d\.\d\d)", (ROOT / "docs/kit.md").read_text("utf-8"), re.S)
    assert told is not None
    assert [float(each) for each in told.groups()] == [round(each, 2) for each in co2.measured(values.values)]


def test_the_file_answers_what_was_fitted_and_is_the_same_each_time(values: co2.Series, tmp_path: Path) -> None:
    made = co2.build()
    assert made == co2.build()
    (tmp_path / "model.onnx").write_bytes(made["model.onnx"])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    before = values.values[co2.FITTED : co2.FITTED + co2.SEEN].astype(np.float32)[np.newaxis]
    weights, offset = co2.fitted(values.values[: co2.FITTED])
    (found,) = session.run(["forecast"], {"series": before})
    assert np.allclose(found, (before - before[:, -1:]) @ weights + offset + before[:, -1:], atol=1e-3)
    assert made["sample.csv"].count(b"\n") == co2.SEEN + 1
