from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tidemill.kit.install import sample
from tidemill.steps.notes import FRAMES_PER_S, OUTPUTS, Note, loudest, notes


def test_tone_of_440_hz_is_the_a_of_the_middle(kit: Path) -> None:
    session = onnxruntime.InferenceSession(kit / "basic-pitch/1/model.onnx", providers=["CPUExecutionProvider"])
    (activation,) = session.run([OUTPUTS[0]], sample("basic-pitch"))
    assert loudest(activation[0]) == 69
    (note,) = notes(activation[0])
    assert (note.midi, note.name) == (69, "A4")
    assert note.end_s - note.start_s > 1


def test_notes_start_and_end_with_their_activation() -> None:
    activation = np.zeros((100, 88), np.float32)
    activation[20:60, 39] = 0.9
    activation[10:100, 0] = 0.5
    activation[5:9, 87] = 0.9
    assert notes(activation) == [
        Note(21, 10 / FRAMES_PER_S, 100 / FRAMES_PER_S),
        Note(60, 20 / FRAMES_PER_S, 60 / FRAMES_PER_S),
    ]


@pytest.mark.parametrize(("midi", "name"), [(21, "A0"), (60, "C4"), (61, "C#4"), (108, "C8")])
def test_notes_carry_their_usual_names(midi: int, name: str) -> None:
    assert Note(midi, 0, 1).name == name
