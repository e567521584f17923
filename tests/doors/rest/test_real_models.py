"""Real models through the real server: what they answer is what onnxruntime alone answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from kit.test_magika_features import FILES
from serving import Server
from tidemill.core.tensor import Array
from tidemill.kit import magika_features

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
CHUNK = 512
A4 = 69
LOWEST_NOTE = 21
V2_NAMES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def infer(server: Server, model: str, inputs: dict[str, Array], binary: bool = True) -> dict[str, Array]:
    asked: dict[str, Any] = {"inputs": [], "parameters": {"binary_data_output": binary}}
    tail = b""
    for name, array in inputs.items():
        told: dict[str, Any] = {"name": name, "datatype": V2_NAMES[array.dtype.name], "shape": list(array.shape)}
        if binary:
            told["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            told["data"] = array.ravel().tolist()
        asked["inputs"].append(told)
    head = json.dumps(asked).encode()
    answer = server.infer(model, head + tail, **{"inference-header-content-length": str(len(head))})
    assert answer.status_code == 200, answer.text
    if not binary:
        return {
            each["name"]: np.array(each["data"], np.float32).reshape(each["shape"]) for each in answer.json()["outputs"]
        }
    length = int(answer.headers["inference-header-content-length"])
    found, place = {}, length
    for each in json.loads(answer.content[:length])["outputs"]:
        size = each["parameters"]["binary_data_size"]
        found[each["name"]] = np.frombuffer(answer.content[place : place + size], np.float32).reshape(each["shape"])
        place += size
    return found


# -- magika ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["predict", "json", "binary"])
def test_real_files_get_their_types(real_server: Server, kit: Path, form: str) -> None:
    names = magika_features.labels(kit / "magika/1")
    rows = np.stack([magika_features.features(content) for content in FILES.values()])
    if form == "predict":
        scores = np.array(real_server.predict("magika", {"instances": rows.tolist()}).json()["predictions"], np.float32)
    else:
        scores = infer(real_server, "magika", {"bytes": rows}, form == "binary")["target_label"]
    assert len(FILES) >= 10
    assert [magika_features.answer(row, names)[0] for row in scores] == list(FILES)


# -- basic-pitch -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sine() -> Array:
    """Two seconds of 440 Hz."""
    tone = np.sin(2 * np.pi * 440 * np.arange(43_844) / 22_050).astype(np.float32)
    return tone[np.newaxis, :, np.newaxis]


def notes(answers: dict[str, Array]) -> Array:
    """MIDI numbers by how sure the model is of them, the surest last; the outputs differ in their last side."""
    by_note = [each for each in answers.values() if each.shape[-1] == 88]
    return np.argsort(np.maximum(*(each[0].mean(axis=0) for each in by_note))) + LOWEST_NOTE


@pytest.fixture(scope="module")
def both(real_server: Server, sine: Array) -> list[dict[str, Array]]:
    given = {"basic-pitch": "serving_default_input_2:0", "basic-pitch-savedmodel": "input_2"}
    return [infer(real_server, model, {name: sine}) for model, name in given.items()]


def test_a_sine_of_440_hz_is_the_note_a4(both: list[dict[str, Array]]) -> None:
    for answers in both:
        assert notes(answers)[-1] == A4


def test_onnx_and_savedmodel_answer_the_same(both: list[dict[str, Array]]) -> None:
    """The outputs are named differently: each is held against the nearest of its shape."""
    onnx, saved = both
    assert len(onnx) == len(saved) == 3
    left = list(saved.values())
    for array in onnx.values():
        distance = [float(np.abs(array - each).max()) if each.shape == array.shape else np.inf for each in left]
        assert min(distance) < 1e-4
        left.pop(int(np.argmin(distance)))


# -- silero-vad --------------------------------------------------------------------------------------------------------


def sounds() -> Array:
    """A second of silence, a second of something like a voice, a second of silence."""
    at = np.arange(RATE_HZ) / RATE_HZ
    rng = np.random.default_rng(7)
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * at)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    formants = sum(np.sin(n * phase) / n for n in range(1, 20))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * at)
    voice = 0.2 * formants * envelope + 0.005 * rng.standard_normal(RATE_HZ)
    silence = 0.0005 * rng.standard_normal(RATE_HZ)
    return np.concatenate([silence, voice, silence]).astype(np.float32)


def chunks(audio: Array) -> list[Array]:
    return [audio[np.newaxis, at : at + CHUNK] for at in range(0, len(audio) - CHUNK + 1, CHUNK)]


def test_silero_keeps_its_state_through_a_clients_loop(real_server: Server, kit: Path) -> None:
    """The state travels with the client; chunk by chunk the server says what onnxruntime says."""
    session = onnxruntime.InferenceSession(kit / "silero-vad/1" / _only_onnx(kit), providers=["CPUExecutionProvider"])
    mine = theirs = np.zeros((2, 1, 128), np.float32)
    rate = np.array(RATE_HZ, np.int64)
    heard = []
    for number, chunk in enumerate(chunks(sounds())):
        answers = infer(real_server, "silero-vad", {"input": chunk, "state": mine, "sr": rate}, binary=number % 4 != 0)
        mine, probability = answers["stateN"], answers["output"]
        expected, theirs = session.run(None, {"input": chunk, "state": theirs, "sr": rate})
        np.testing.assert_allclose(probability, expected, atol=1e-5)
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
        heard.append(float(probability[0, 0]))
    third = len(heard) // 3
    before, voice = max(heard[5 : third - 1]), max(heard[third + 2 : 2 * third])
    assert before < 0.2
    assert voice > before


def _only_onnx(kit: Path) -> str:
    (path,) = (kit / "silero-vad/1").glob("*.onnx")
    return path.name


def test_silero_forgets_where_the_state_is_not_sent_back(real_server: Server) -> None:
    state, rate = np.zeros((2, 1, 128), np.float32), np.array(RATE_HZ, np.int64)
    chunk = chunks(sounds())[40]
    answers = [infer(real_server, "silero-vad", {"input": chunk, "state": state, "sr": rate}) for _ in range(3)]
    for each in answers[1:]:
        np.testing.assert_array_equal(each["output"], answers[0]["output"])
