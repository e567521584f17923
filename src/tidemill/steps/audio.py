"""Steps on sound and series: decode, resample, cut into windows; pure, on the steps' threads."""

from __future__ import annotations

from math import gcd
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia
from tidemill.core.tensor import Array
from tidemill.steps import wav
from tidemill.steps.step import Function, Name, Place, Step, Values, given, raw, take

ZERO_CROSSINGS = 16
"""Of the windowed sinc on each side: 60 dB and more outside the band."""
PHASES_MAX = 2048
WINDOWS_MAX = 100_000


class Wav(Step, frozen=True, kw_only=True):
    """Decodes WAV (PCM of 8 to 32 bits, floats) to `audio` FP32 [samples], all channels mixed, and `rate_hz`."""

    accepts: ClassVar[tuple[str, ...]] = ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave")
    output: Name = "audio"

    def bind(self, place: Place) -> Function:
        def apply(values: Values) -> Values:
            audio, rate_hz = wav.read(raw(values), place.bounds.audio_s_max)
            return {self.output: audio, "rate_hz": rate_hz, "seconds": len(audio) / rate_hz}

        return apply


class Resample(Step, frozen=True, kw_only=True):
    """Sound at another rate, by a windowed sinc that lets nothing above half of the lower rate pass."""

    rate_hz: Annotated[int, Meta(ge=1000, le=384_000, description="the rate that the model wants")]
    input: Name = "audio"
    output: Name = "audio"

    def apply(self, values: Values) -> Values:
        audio, rate_hz = take(values, self.input), given(values, "rate_hz")
        return {self.output: resample(audio, rate_hz, self.rate_hz), "rate_hz": self.rate_hz}


def resample(audio: Array, from_hz: int, to_hz: int) -> Array:
    """float32 [samples * to / from]. Rates whose ratio has more phases than `PHASES_MAX` are met to within one."""
    if from_hz == to_hz:
        return audio
    up, down = to_hz // gcd(from_hz, to_hz), from_hz // gcd(from_hz, to_hz)
    cutoff = min(1.0, to_hz / from_hz)
    half = int(np.ceil(ZERO_CROSSINGS / cutoff))
    count = max(1, -(-len(audio) * up // down))
    padded = np.pad(np.asarray(audio, np.float32), (half, half + 1))
    found = np.empty(count, np.float32)
    taps = np.arange(-half + 1, half + 1)
    phases = min(up, PHASES_MAX)
    table = _kernel(taps[np.newaxis, :] - (np.arange(phases) / phases)[:, np.newaxis], cutoff, half)
    step = max(1, 2**21 // len(taps))  # outputs at once: the places of their inputs fit into some megabytes
    for start in range(0, count, step):
        at = np.arange(start, min(start + step, count), dtype=np.int64) * down
        place, phase = at // up, (at % up) * phases // up
        windows = padded[(place + 1)[:, np.newaxis] + np.arange(len(taps))]
        found[start : start + len(at)] = np.einsum("ij,ij->i", windows, table[phase])
    return found


def _kernel(distance: Array, cutoff: float, half: int) -> Array:
    shape = np.sinc(distance * cutoff) * cutoff * np.cos(np.pi * np.clip(distance / half, -1, 1) / 2) ** 2
    weights = shape / shape.sum(axis=1, keepdims=True)
    return np.asarray(weights, np.float32)


class Window(Step, frozen=True, kw_only=True):
    """Cuts a series [samples] into windows FP32 [N, size], `hop` apart, the last filled up with zeros.

    `each = "last"` takes the last `size` values alone: what a forecaster looks at. `count` is how many windows there
    are, `length` how many values there were.
    """

    size: Annotated[int, Meta(ge=1, le=2**24)]
    hop: Annotated[
        Annotated[int, Meta(ge=1, le=2**24)] | None, Meta(description="as long as `size` where it is not given")
    ] = None
    lead: Annotated[int, Meta(ge=0, le=2**20, description="zeros in front of the first")] = 0
    each: Literal["all", "last"] = "all"
    axis: Annotated[bool, Meta(description="another dimension of one behind: [N, size, 1]")] = False
    input: Name = "audio"
    output: Name = "windows"

    def apply(self, values: Values) -> Values:
        series = np.asarray(take(values, self.input), np.float32).ravel()
        if self.each == "last":
            if len(series) < self.size:
                raise BadMedia(f"{self.input!r} has {len(series)} values, the model looks at the last {self.size}")
            cut = np.ascontiguousarray(series[np.newaxis, -self.size :])
        else:
            cut = windows(np.pad(series, (self.lead, 0)), self.size, self.hop or self.size)
        found = cut[..., np.newaxis] if self.axis else cut
        return {self.output: found, "count": len(cut), "length": len(series)}


def windows(series: Array, size: int, hop: int) -> Array:
    """float32 [N, size]. Raises `BadMedia` for more windows than a request may be."""
    count = max(1, -(-(len(series) - size) // hop) + 1)
    if count > WINDOWS_MAX:
        raise BadMedia(f"{len(series)} values make {count} windows, the most allowed is {WINDOWS_MAX}; send a part")
    padded = np.pad(series, (0, max(0, (count - 1) * hop + size - len(series))))
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count])
