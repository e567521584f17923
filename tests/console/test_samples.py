"""Examples fit what they are examples of."""

from __future__ import annotations

import csv
import io
import json
import wave

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.console import samples
from tidemill.console.snapshot import Model
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.doors.tfserving import translate

SPECS = st.lists(
    st.builds(
        TensorSpec,
        name=st.sampled_from("abcdef"),
        datatype=st.sampled_from(sorted(DTYPES)),
        shape=st.none() | st.lists(st.integers(1, 4) | st.just(-1), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec.name,
)


@given(SPECS)
def test_the_example_of_tensors_is_taken_by_predicts_own_reader(specs: list[TensorSpec]) -> None:
    text, count = samples.tensors(Model("m", 1, "AVAILABLE", inputs=tuple(specs)))
    tensors = translate.question(Signature(tuple(specs), ()), text.encode()).work.inputs
    assert sum(array.size for array in tensors.values()) == count


def test_an_example_that_is_too_large_is_not_made() -> None:
    spec = TensorSpec("x", "FP32", (4096, 4096))
    assert samples.tensors(Model("m", 1, "AVAILABLE", inputs=(spec,))) == ("", 4096 * 4096)


def test_the_tone_is_a_wav_of_its_pitch() -> None:
    with wave.open(io.BytesIO(samples.tone(440.0, 1.0))) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getnframes()) == (1, 2, samples.RATE_HZ)
        heard = np.frombuffer(reader.readframes(samples.RATE_HZ), "<i2")
    assert np.argmax(np.abs(np.fft.rfft(heard))) == 440


def test_the_table_is_whole_and_rises_in_time() -> None:
    rows = list(csv.DictReader(samples.weeks().splitlines()))
    assert len(rows) == samples.WEEKS
    assert [row["date"] for row in rows] == sorted(row["date"] for row in rows)
    assert all(350 < float(row["co2"]) < 400 for row in rows)


def test_the_source_compiles() -> None:
    compile(samples.SOURCE, "sample", "exec")
    assert json.dumps(samples.TEXT)
