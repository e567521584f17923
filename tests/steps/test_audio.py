from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import tone, wav, wav_of_floats
from tidemill.core.errors import BadMedia
from tidemill.steps import wav as reader
from tidemill.steps.audio import Window, resample
from tidemill.steps.chain import build
from tidemill.steps.step import Bounds, Place

RATES = [(44_100, 22_050), (8000, 16_000), (44_100, 16_000), (22_050, 48_000), (11_025, 16_000)]
X = tone(440, 0.05, 8000)


@pytest.mark.parametrize(("width", "off"), [(2, 1e-4), (3, 1e-6), (4, 1e-6)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pcm_of_every_width_is_what_was_written(width: int, off: float, channels: int) -> None:
    found, rate_hz = reader.read(wav(X, 8000, width, channels), 60)
    assert rate_hz == 8000
    assert found.dtype == np.float32
    assert np.allclose(found, X, atol=off)


@pytest.mark.parametrize("bits", [32, 64])
def test_floats_are_what_was_written(bits: int) -> None:
    assert np.allclose(reader.read(wav_of_floats(X, 8000, bits), 60)[0], X, atol=1e-7)


def test_eight_bits_have_their_zero_in_the_middle() -> None:
    file = bytearray(wav(np.zeros(4), 8000))
    struct.pack_into("<H", file, 34, 8)
    file[-8:] = bytes([0, 64, 128, 192, 255, 128, 128, 128])
    assert reader.read(bytes(file), 1)[0][:4].tolist() == [-1, -0.5, 0, 0.5]


def test_parts_that_say_nothing_are_passed_over_and_an_unknown_length_is_the_rest() -> None:
    file = wav(X, 8000)
    more = file[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + file[12:]
    assert np.array_equal(reader.read(more, 1)[0], reader.read(file, 1)[0])
    endless = file[:40] + b"\xff\xff\xff\xff" + file[44:]
    assert np.array_equal(reader.read(endless, 1)[0], reader.read(file, 1)[0])


def patched(place: int, value: int, form: str = "<H") -> bytes:
    file = bytearray(wav(X, 8000))
    struct.pack_into(form, file, place, value)
    return bytes(file)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no WAV"),
        (b"RIFF\0\0\0\0AVI ", "no WAV"),
        (wav(X, 8000)[:30], "cut short"),
        (wav(X, 8000)[:-7], "cut short"),
        (wav(np.zeros(0), 8000), "not one sample"),
        (wav(X, 8000)[:36], "no data"),
        (patched(20, 7), "format 7 of 16 bits"),
        (patched(34, 12), "12 bits"),
        (patched(22, 0), "0 channels"),
        (patched(24, 1, "<I"), "at 1 Hz"),
        (patched(16, 4, "<I"), "at least 16"),
        (wav(np.zeros(20_000), 8000), "lasts 2 s, the most allowed is 1 s"),
        (wav_of_floats(np.array([0.0, np.nan]), 8000), "no numbers"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 2000, "more than 1024 parts"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadMedia, match=says):
        reader.read(data, 1)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_a_sound_or_refused(tail: bytes, kept: int) -> None:
    try:
        found, _ = reader.read(wav(X, 8000)[:kept] + tail, 10)
    except BadMedia:
        return
    assert len(found)


@pytest.mark.parametrize(("before", "after"), RATES)
def test_a_tone_is_the_same_tone_at_another_rate(before: int, after: int) -> None:
    found = resample(tone(440, 0.5, before).astype(np.float32), before, after)
    assert len(found) == round(0.5 * after)
    inner = slice(after // 20, -after // 20)
    assert np.abs(found - tone(440, 0.5, after)[: len(found)])[inner].max() < 2e-3


def test_what_the_lower_rate_cannot_carry_is_gone() -> None:
    found = resample(tone(7000, 0.5, 44_100).astype(np.float32), 44_100, 8000)
    assert np.abs(found[400:-400]).max() < 0.01


def test_one_sample_and_odd_rates_are_taken() -> None:
    assert len(resample(np.ones(1, np.float32), 8000, 16_000)) == 2
    assert len(resample(np.ones(1000, np.float32), 383_999, 16_001)) == 42


def cut(**options: Any) -> dict[str, Any]:
    return dict(Window(**options).apply({"audio": np.arange(1, 11, dtype=np.float32)}))


def test_windows_overlap_and_the_last_is_filled_up() -> None:
    assert cut(size=4, hop=3)["windows"].tolist() == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 10]]
    assert cut(size=4)["windows"].tolist()[-1] == [9, 10, 0, 0]
    assert cut(size=4, hop=3, lead=1)["windows"].tolist()[0] == [0, 1, 2, 3]
    assert cut(size=16, axis=True)["windows"].shape == (1, 16, 1)
    assert cut(size=3, each="last")["windows"].tolist() == [[8, 9, 10]]
    with pytest.raises(BadMedia, match="has 10 values, the model looks at the last 11"):
        cut(size=11, each="last")


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 50))
def test_every_sample_is_in_a_window(length: int, size: int, hop: int) -> None:
    hop = min(hop, size)
    series = np.arange(1, length + 1, dtype=np.float32)
    found = Window(size=size, hop=hop).apply({"audio": series})["windows"]
    assert set(found.ravel()) - {0} == set(series)
    assert len(found) == 1 or (found[-1] != 0).any()


def test_a_sound_too_long_is_refused_by_the_setting() -> None:
    chain = build([{"step": "wav"}], Place(Path(), Bounds(audio_s_max=1)))
    with pytest.raises(BadMedia, match="audio-s-max"):
        chain({"data": wav(np.zeros(8001), 8000)})
