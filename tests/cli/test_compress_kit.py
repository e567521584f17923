"""Models of the kit that are hard to compress, by the command a user types: what comes out still reads, and what is
left alone is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont

from serving import tidemill
from tidemill.core.tensor import Array
from tidemill.kit.install import install

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 240, 48
WORDS = ("Espresso", "Apple", "Total", "Thanks", "Bread", "Butter", "Cheese", "Orange", "Table", "Cash", "Coffee")


def texts(count: int, seed: int) -> list[str]:
    chance = np.random.default_rng(seed)
    return [f"{chance.choice(WORDS)} {chance.integers(1, 99)}.{chance.integers(10)}0" for _ in range(count)]


def line(text: str) -> Array:
    """What the recogniser takes: [3, HEIGHT, WIDTH] from -1 to 1."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(picture).text((8, 4), text, fill="black", font=ImageFont.load_default(28))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)


def read(session: onnxruntime.InferenceSession, characters: list[str], text: str) -> str:
    (scores,) = session.run(None, {"x": line(text)[np.newaxis]})
    best = scores[0].argmax(axis=-1)
    told = [characters[at] for before, at in zip([0, *best], best, strict=False) if at and at != before]
    return "".join(told).strip()


@pytest.mark.parametrize("method", ["int8", "laplace"])
def test_the_recogniser_reads_the_same_lines_afterwards(tmp_path: Path, method: str) -> None:
    install(["ocr-rec"], tmp_path / "models")
    np.savez(tmp_path / "lines.npz", x=np.stack([line(text) for text in texts(24, seed=1)]))
    ran = tidemill(
        "compress", "ocr-rec", "--method", method, "--data", "lines.npz", "-o", "small",
        "--models", tmp_path / "models", "--work", tmp_path / "work", "--no-measure", cwd=tmp_path, timeout_s=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    before, after = (
        onnxruntime.InferenceSession(str(tmp_path / "models" / name / "1" / "model.onnx"))
        for name in ("ocr-rec", "small")
    )
    characters = ["", *before.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]
    for text in texts(10, seed=2):
        assert read(after, characters, text) == read(before, characters, text)
    told = json.loads((tmp_path / "models/small/1/report/report.json").read_text())
    assert len(told["layers"]) > 40


@pytest.mark.parametrize("method", ["int8", "laplace"])
def test_layers_in_branches_are_refused_each_with_its_reason(tmp_path: Path, method: str) -> None:
    install(["silero-vad"], tmp_path / "models")
    rows = 4
    np.savez(
        tmp_path / "speech.npz",
        input=np.zeros((rows, 512), np.float32), state=np.zeros((rows, 2, 128), np.float32), sr=np.full(rows, 16000),
    )  # fmt: skip
    ran = tidemill(
        "compress", "silero-vad", "--method", method, "--data", "speech.npz", "-o", "small",
        "--models", tmp_path / "models", cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode != 0
    for layer in ("stft/Conv (Conv)", "encoder/0/reparam_conv/Conv (Conv)", "decoder/rnn/LSTM (LSTM)"):
        assert f"{layer} was left alone: it lies inside" in ran.stderr
    assert "(compress.recipe)" in ran.stderr
    assert not (tmp_path / "models/small").exists()
