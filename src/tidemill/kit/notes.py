"""From basic-pitch's output to the notes that were played; pure, any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tidemill.core.tensor import Array

MIDI_MIN: Final = 21
"""The note of bin 0: A0, the lowest key of a piano."""
FRAMES_PER_S: Final = 22_050 / 256
OUTPUTS: Final = ("StatefulPartitionedCall:1", "note")
"""What the output of note activations is called: in the ONNX file, in the SavedModel."""

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True, slots=True)
class Note:
    """A note that sounds from `start_s` to `end_s`; `midi` 69 is the A of 440 Hz."""

    midi: int
    start_s: float
    end_s: float

    @property
    def name(self) -> str:
        return f"{_NAMES[self.midi % 12]}{self.midi // 12 - 1}"


def loudest(activation: Array) -> int:
    """MIDI number of the strongest note over all frames; `activation` is [frames, 88] of one clip."""
    return MIDI_MIN + int(np.argmax(activation.sum(axis=0)))


def notes(activation: Array, threshold: float = 0.3, frames_min: int = 11) -> list[Note]:
    """Stretches of at least `frames_min` frames in which a note's activation exceeds `threshold`, in order of time."""
    found = []
    for bin_number, sounding in enumerate((activation > threshold).T):
        edges = np.flatnonzero(np.diff(sounding.astype(np.int8), prepend=0, append=0))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - start >= frames_min:
                found.append(Note(MIDI_MIN + bin_number, start / FRAMES_PER_S, end / FRAMES_PER_S))
    return sorted(found, key=lambda note: (note.start_s, note.midi))
