"""The step from basic-pitch's activations to the notes that were played; pure, on the steps' threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

import numpy as np
from msgspec import Meta

from tidemill.core.tensor import Array
from tidemill.steps.step import ANSWER, Name, Step, Values, given, take

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
    strength: float = field(default=1.0, compare=False)

    @property
    def name(self) -> str:
        return f"{_NAMES[self.midi % 12]}{self.midi // 12 - 1}"


class Notes(Step, frozen=True, kw_only=True):
    """basic-pitch's activations of notes [windows, frames, 88] to note events, windows joined where they overlap."""

    input: Name
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.3
    frames_min: Annotated[int, Meta(ge=1, description="frames of 11.6 ms that a note lasts at least")] = 11
    hop: Annotated[int, Meta(ge=1, description="samples from one window to the next, as `window` cut them")]
    size: Annotated[int, Meta(ge=1, description="samples of a window")]
    lead: Annotated[int, Meta(ge=0, description="zeros that `window` put in front")] = 0
    output: Name = ANSWER

    def apply(self, values: Values) -> Values:
        whole = self.joined(take(values, self.input))
        end_s = float(given(values, "seconds"))
        heard = (note for note in notes(whole, self.threshold, self.frames_min) if note.start_s < end_s)
        told = [
            {
                "midi": note.midi, "note": note.name, "start_s": round(note.start_s, 3),
                "end_s": round(min(note.end_s, end_s), 3), "strength": round(note.strength, 3),
            }
            for note in heard
        ]  # fmt: skip
        return {self.output: told}

    def joined(self, activation: Array) -> Array:
        """[all frames, 88]: of what two windows see, each gives the half that is farther from its edge."""
        frames_a_window = activation.shape[1]
        a_sample = frames_a_window / self.size
        edge = (self.size - self.hop) / 2 * a_sample
        total = round((len(activation) - 1) * self.hop * a_sample) + frames_a_window
        whole = np.zeros((total, activation.shape[2]), activation.dtype)
        for number, window in enumerate(activation):
            start = round(number * self.hop * a_sample)
            skip = round(edge) if number else 0
            whole[start + skip : start + frames_a_window] = window[skip:]
        return whole[round(self.lead * a_sample) :]


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
                strength = float(activation[start:end, bin_number].mean())
                found.append(Note(MIDI_MIN + bin_number, start / FRAMES_PER_S, end / FRAMES_PER_S, strength))
    return sorted(found, key=lambda note: (note.start_s, note.midi))
