"""A real example input for each model of the kit; pure, any process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tidemill.core.errors import UnknownModel
from tidemill.core.tensor import Array
from tidemill.kit import magika_features
from tidemill.kit.catalogue import chosen

MINILM_TOKENS = (101, 1996, 4971, 4332, 2007, 1996, 10401, 1012, 102)
"""What minilm's tokenizer makes of "The mill turns with the tide."."""


def sample(name: str) -> dict[str, Array]:
    """Tensors that fit the model `name`, dimension 0 being a batch of one. Raises `UnknownModel`.

    half: the number 1. magika: this very file, which is Python source. silero-vad: 32 ms of a 220 Hz tone with the
    state of a beginning. basic-pitch: two seconds of 440 Hz. minilm: "The mill turns with the tide." in its tokens.
    fashion-cnn: a pair of trousers, drawn with straight lines. ocr and its stages: a white picture with three strokes.
    co2-forecast: two years that rise by the season. smollm2 takes words, and has none.
    """
    chosen([name])
    match name:
        case "half":
            return {"input": np.array([1.0], np.float32)}
        case "magika":
            return {"bytes": magika_features.file_features(Path(__file__))[np.newaxis]}
        case "silero-vad":
            return {
                "input": _tone(220, 512, 16_000)[np.newaxis],
                "state": np.zeros((2, 1, 128), np.float32),
                "sr": np.array(16_000, np.int64),
            }
        case "basic-pitch":
            return {"serving_default_input_2:0": _tone(440, 43_844, 22_050)[np.newaxis, :, np.newaxis]}
        case "basic-pitch-savedmodel":
            return {"input_2": _tone(440, 43_844, 22_050)[np.newaxis, :, np.newaxis]}
        case "minilm":
            ids = np.array([MINILM_TOKENS], np.int64)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        case "fashion-cnn":
            return {"image": _trousers()[np.newaxis, np.newaxis]}
        case "ocr":
            return {"image": _strokes()}
        case "ocr-det":
            return {"x": _light(_strokes()[:64, :96])}
        case "ocr-cls":
            return {"x": _light(_strokes()[:48, :192])}
        case "ocr-rec":
            return {"x": _light(_strokes()[:48, :320])}
        case "co2-forecast":
            weeks = np.arange(104)
            return {"series": (350 + weeks * 0.03 + 3 * np.sin(weeks / 52 * 2 * np.pi)).astype(np.float32)[np.newaxis]}
    raise UnknownModel(f"{name!r} takes no tensors, so the kit has none for it")


def _tone(frequency_hz: float, samples: int, rate_hz: int) -> Array:
    return np.sin(2 * np.pi * frequency_hz * np.arange(samples) / rate_hz).astype(np.float32)


def _strokes() -> Array:
    picture = np.full((96, 320, 3), 255, np.uint8)
    for left in (20, 40, 60):
        picture[12:40, left : left + 6] = 0
    return picture


def _light(picture: Array) -> Array:
    """[1, 3, H, W] from -1 to 1."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[np.newaxis] / np.float32(127.5) - 1, np.float32)


def _trousers() -> Array:
    picture = np.zeros((28, 28), np.float32)
    picture[1:27, 8:20] = 0.7
    picture[8:, 13:15] = 0.0
    return picture
