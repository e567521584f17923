"""Steps that read text in pictures: areas of text, crops, their turn, letters; pure, on the steps' threads.

Areas are found as in Differentiable Binarization (Liao and others, 2020), letters by the best path of CTC (Graves and
others, 2006).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia, EngineFailed
from tidemill.core.tensor import Array
from tidemill.steps import geometry
from tidemill.steps.step import ANSWER, Function, Name, Place, Step, Values, given, take

UPRIGHT = 1.5
"""A crop so much higher than wide is text that runs downwards, and is laid on its side."""


class Boxes(Step, frozen=True, kw_only=True):
    """A map of where text is [1, 1, H, W] to `boxes` FP32 [N, 4, 2], (x, y) clockwise from the upper left in the one
    before `resize`, in reading order, and `box_scores` FP32 [N].
    """

    input: Name
    least: Annotated[float, Meta(ge=0, le=1, description="of a pixel")] = 0.3
    score: Annotated[float, Meta(ge=0, le=1, description="of the mean over a box")] = 0.5
    unclip: Annotated[float, Meta(ge=0, le=10, description="how far a box grows: area * unclip / perimeter")] = 1.6
    side_min: Annotated[float, Meta(ge=0, description="pixels of the map")] = 3.0
    most: Annotated[int, Meta(ge=1, le=10_000, description="areas that are looked at, the largest")] = 1000
    image: Annotated[str, Meta(description="the picture that the boxes lie in")] = "image"
    output: Name = "boxes"

    def apply(self, values: Values) -> Values:
        array = take(values, self.input)
        if array.ndim != 4 or array.shape[:2] != (1, 1):
            raise BadMedia(f"{self.input!r} has shape {list(array.shape)}, expected a map [1, 1, H, W]")
        likely, scale = array[0, 0], take(values, "scale")[::-1]
        limit = np.array(take(values, self.image).shape[1::-1], np.float64)
        found, scores = [], []
        for points in geometry.areas(_wider(likely > self.least), self.most):
            around = geometry.smallest_rectangle(points)
            if min(around.width, around.height) < self.side_min:
                continue
            score = geometry.mean_inside(likely, around)
            if score < self.score:
                continue
            perimeter = 2 * (around.width + around.height)
            grown = around.grown(around.width * around.height * self.unclip / perimeter)
            if min(grown.width, grown.height) < self.side_min + 2:
                continue
            found.append(np.clip(grown.corners() * scale, 0, limit))
            scores.append(score)
        boxes = np.array(found, np.float32).reshape(-1, 4, 2)
        order = reading_order(boxes)
        return {self.output: boxes[order], "box_scores": np.array(scores, np.float32)[order]}


def _wider(mask: Array) -> Array:
    """One pixel more to the right and below, which joins strokes that almost touch."""
    whole = mask.copy()
    whole[:, 1:] |= mask[:, :-1]
    whole[1:] |= mask[:-1]
    whole[1:, 1:] |= mask[:-1, :-1]
    return whole


def reading_order(boxes: Array) -> Array:
    """Line by line: a box belongs to the line whose middle lies within half of its height."""
    middles, heights = boxes[..., 1].mean(axis=1), np.ptp(boxes[..., 1], axis=1)
    lines: list[list[int]] = []
    for place in np.argsort(middles, kind="stable").tolist():
        last = lines[-1] if lines else []
        if last and abs(middles[place] - np.mean(middles[last])) < min(heights[place], heights[last].min()) / 2:
            last.append(place)
        else:
            lines.append([place])
    left = boxes[..., 0].min(axis=1)
    return np.array([place for line in lines for place in sorted(line, key=lambda each: left[each])], np.int64)


class Crops(Step, frozen=True, kw_only=True):
    """Cuts each of `boxes` out of the picture, straightened: `crops`, a list of UINT8 [h, w, C]."""

    input: Name = "image"
    boxes: Name = "boxes"
    output: Name = "crops"

    def bind(self, place: Place) -> Function:
        from PIL import Image as _  # noqa: F401 - a missing library is told when the model is loaded

        return self.apply

    def apply(self, values: Values) -> Values:
        from PIL import Image as pillow

        picture = pillow.fromarray(np.ascontiguousarray(take(values, self.input)))
        return {self.output: [_cut(pillow, picture, box) for box in take(values, self.boxes)]}


def _cut(pillow: Any, picture: Any, box: Array) -> Array:
    upper_left, upper_right, lower_right, lower_left = box.astype(float)
    width = max(np.hypot(*(upper_right - upper_left)), np.hypot(*(lower_right - lower_left)))
    height = max(np.hypot(*(lower_left - upper_left)), np.hypot(*(lower_right - upper_right)))
    size = max(1, round(width)), max(1, round(height))
    corners = np.concatenate([upper_left, lower_left, lower_right, upper_right]).tolist()
    straight = picture.transform(size, pillow.Transform.QUAD, corners, pillow.Resampling.BICUBIC)
    found: Array = np.asarray(straight, np.uint8)
    return np.ascontiguousarray(np.rot90(found)) if size[1] >= UPRIGHT * size[0] else found


class Turn(Step, frozen=True, kw_only=True):
    """Turns a picture by half where its classes [1, 2] (upright, upside down) say so."""

    input: Name
    scores: Name
    least: Annotated[float, Meta(ge=0, le=1)] = 0.9
    output: Annotated[str, Meta(description='"": where it was')] = ""

    def apply(self, values: Values) -> Values:
        picture, scores = take(values, self.input), take(values, self.scores)
        turned = scores.size == 2 and float(scores.reshape(-1)[1]) > self.least
        return {self.output or self.input: np.ascontiguousarray(np.rot90(picture, 2)) if turned else picture}


class Ctc(Step, frozen=True, kw_only=True):
    """Letters by their shares at each place [N, T, letters + 1] to `text` BYTES [N] and `score` FP32 [N].

    The first class is the blank, the others are the lines of a file beside the model.
    """

    input: Name
    letters: Annotated[str, Meta(description="file of letters, one a line")] = "letters.txt"
    text: Name = "text"
    score: Name = "score"

    def bind(self, place: Place) -> Function:
        letters = place.lines(self.letters)

        def apply(values: Values) -> Values:
            shares = take(values, self.input)
            if shares.ndim != 3 or shares.shape[2] != len(letters) + 1:
                raise EngineFailed(
                    f"{self.input!r} has shape {list(shares.shape)}, expected [N, T, {len(letters) + 1}]:"
                    f" a blank and the {len(letters)} letters of {self.letters}"
                )
            texts, scores = np.empty(len(shares), object), np.zeros(len(shares), np.float32)
            for number, row in enumerate(shares):
                text, scores[number] = best_path(row, letters)
                texts[number] = text.encode()
            return {self.text: texts, self.score: scores}

        return apply


def best_path(shares: Array, letters: tuple[str, ...]) -> tuple[str, float]:
    """The text and the mean share of its letters, 0 without any; `shares` is [T, letters + 1], 0 the blank."""
    best = shares.argmax(axis=1)
    kept = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))
    score = float(shares.max(axis=1)[kept].mean()) if kept.any() else 0.0
    return "".join(letters[place - 1] for place in best[kept].tolist()), score


class Lines(Step, frozen=True, kw_only=True):
    """Texts with their boxes as a list of `{"text", "score", "box"}`, without those below `least`."""

    least: Annotated[float, Meta(ge=0, le=1)] = 0.5
    text: Name = "text"
    score: Name = "score"
    boxes: Annotated[str, Meta(description='"": none')] = "boxes"
    output: Name = ANSWER

    def apply(self, values: Values) -> Values:
        texts, scores = given(values, self.text), given(values, self.score)
        boxes = given(values, self.boxes) if self.boxes else [None] * len(texts)
        found = []
        for text, score, box in zip(texts, scores, boxes, strict=True):
            word = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
            if score < self.least or not word.strip():
                continue
            told: dict[str, Any] = {"text": word, "score": round(float(score), 4)}
            found.append(told if box is None else {**told, "box": np.round(box).astype(int).tolist()})
        return {self.output: found}
