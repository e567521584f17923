from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tidemill.core.errors import BadMedia, EngineFailed
from tidemill.core.tensor import Array
from tidemill.steps import geometry
from tidemill.steps.chain import build
from tidemill.steps.reading import Boxes, Crops, Lines, Turn, best_path, reading_order
from tidemill.steps.step import Place


def flooded(mask: Array) -> set[frozenset[tuple[int, int]]]:
    """The connected areas, found the slow way."""
    left = {(int(x), int(y)) for y, x in np.argwhere(mask)}
    found = set()
    while left:
        edge = [left.pop()]
        area = set(edge)
        while edge:
            x, y = edge.pop()
            near = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)} & left
            left -= near
            area |= near
            edge += near
        found.add(frozenset(area))
    return found


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_areas_are_those_that_flooding_finds(mask: Array) -> None:
    found = geometry.areas(mask, 1000)
    slow = flooded(mask)
    assert len(found) == len(slow)
    for points in found:
        (area,) = [each for each in slow if tuple(points[0]) in each]
        assert {tuple(each) for each in points.tolist()} <= area
        assert points.min(axis=0).tolist() == [min(x for x, _ in area), min(y for _, y in area)]
        assert points.max(axis=0).tolist() == [max(x for x, _ in area), max(y for _, y in area)]


def test_of_too_many_areas_the_largest_are_kept() -> None:
    mask = np.zeros((5, 20), bool)
    mask[0, 0] = mask[2, 3:9] = mask[4, 2:4] = True
    assert [len(np.unique(each[:, 1])) for each in geometry.areas(mask, 2)] == [1, 1]
    assert sorted(int(each[0, 1]) for each in geometry.areas(mask, 2)) == [2, 4]


POINTS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=60)


@given(POINTS)
def test_everything_lies_within_hull_and_rectangle(points: list[tuple[int, int]]) -> None:
    given_points = np.array(points, np.int64)
    corners = geometry.hull(given_points)
    assert {tuple(each) for each in corners.tolist()} <= set(points)
    found = geometry.smallest_rectangle(given_points)
    across = np.array([-found.axis[1], found.axis[0]])
    away = given_points - found.centre
    assert (np.abs(away @ found.axis) <= found.width / 2 + 1e-6).all()
    assert (np.abs(away @ across) <= found.height / 2 + 1e-6).all()
    upright = np.ptp(given_points, axis=0)
    assert found.width * found.height <= upright[0] * upright[1] + 1e-6


@pytest.mark.parametrize("degrees", [-40, -10, 0, 5, 30, 44])
def test_a_turned_rectangle_is_found_with_its_turn(degrees: int) -> None:
    angle = math.radians(degrees)
    axis, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    y, x = np.mgrid[:200, :200]
    away = np.stack([x - 100, y - 90], axis=-1)
    mask = (np.abs(away @ axis) <= 60) & (np.abs(away @ across) <= 15)
    (points,) = geometry.areas(mask, 10)
    found = geometry.smallest_rectangle(points)
    assert found.width == pytest.approx(120, abs=3)
    assert found.height == pytest.approx(30, abs=3)
    assert math.degrees(math.atan2(found.axis[1], found.axis[0])) % 180 == pytest.approx(degrees % 180, abs=1.5)
    assert geometry.mean_inside(mask.astype(np.float32), found) > 0.97
    corners = found.corners()
    assert corners[0, 0] < corners[1, 0]
    assert corners[0, 1] < corners[3, 1]


def test_boxes_lie_where_the_text_was_before_it_was_resized() -> None:
    likely = np.zeros((1, 1, 64, 128), np.float32)
    likely[0, 0, 10:18, 20:60] = 0.9
    likely[0, 0, 40:48, 10:30] = 0.9
    likely[0, 0, 41:47, 60:100] = 0.9
    likely[0, 0, 30, 5] = 0.9  # too small
    likely[0, 0, 20:28, 80:120] = 0.4  # not likely enough
    values = {"map": likely, "scale": np.array([2.0, 3.0]), "image": np.zeros((128, 384, 3), np.uint8)}
    found = Boxes(input="map").apply(values)
    boxes: Array = found["boxes"]
    assert (boxes.shape, boxes.dtype) == ((3, 4, 2), np.float32)
    middles = boxes.mean(axis=1)
    assert np.abs(middles - [[120, 28], [60, 88], [240, 88]]).max() < 4
    assert np.ptp(boxes[0, :, 0]) > 40 * 3
    assert (found["box_scores"] > 0.5).all()
    empty = Boxes(input="map").apply({**values, "map": np.zeros((1, 1, 8, 8), np.float32)})
    assert empty["boxes"].shape == (0, 4, 2)
    with pytest.raises(BadMedia, match="expected a map"):
        Boxes(input="map").apply({**values, "map": np.zeros((1, 3, 8, 8), np.float32)})


def box(left: float, top: float, width: float = 50, height: float = 20) -> list[list[float]]:
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def test_lines_are_read_from_the_top_and_each_from_the_left() -> None:
    boxes = np.array([box(200, 8), box(10, 60), box(100, 3), box(10, 0), box(150, 55)], np.float32)
    assert reading_order(boxes).tolist() == [3, 2, 0, 1, 4]


def test_a_crop_is_straight_and_text_that_runs_down_is_laid_on_its_side() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[20:40, 10:70] = 200
    picture[20:30, 10:40] = 100
    (straight,) = Crops().apply({"image": picture, "boxes": np.array([box(10, 20, 60, 20)])})["crops"]
    assert straight.shape == (20, 60, 3)
    assert (straight[3:7, 3:27] == 100).all()
    assert (straight[13:17, 3:57] == 200).all()
    (laid,) = Crops().apply({"image": picture.transpose(1, 0, 2), "boxes": np.array([box(20, 10, 20, 60)])})["crops"]
    assert laid.shape == (20, 60, 3)
    assert np.array_equal(laid[::-1], straight)


@pytest.mark.parametrize(("share", "turned"), [(0.95, True), (0.85, False)])
def test_what_stands_upside_down_is_turned(share: float, turned: bool) -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    values = {"p": picture, "s": np.array([[1 - share, share]], np.float32)}
    found = Turn(input="p", scores="s").apply(values)["p"]
    assert np.array_equal(found, picture[::-1, ::-1] if turned else picture)


def shares(path: str, letters: str, sure: float = 0.9) -> Array:
    """The shares of a recogniser that sees `path`, `_` being the blank."""
    rows = np.full((len(path), len(letters) + 1), (1 - sure) / len(letters), np.float32)
    for place, letter in enumerate(path):
        rows[place, 0 if letter == "_" else letters.index(letter) + 1] = sure
    return rows


@pytest.mark.parametrize(
    ("path", "text"), [("__aa_a_b", "aab"), ("aaa", "a"), ("a_a", "aa"), ("____", ""), ("abab", "abab"), ("", "")]
)
def test_letters_are_those_of_the_best_path(path: str, text: str) -> None:
    found, score = best_path(shares(path, "ab").reshape(-1, 3), ("a", "b"))
    assert found == text
    assert score == pytest.approx(0.9 if text else 0)


def test_letters_come_from_the_file_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("水\nb\n \n", "utf-8")
    chain = build([{"step": "ctc", "input": "x"}], Place(tmp_path))
    found: dict[str, Any] = chain({"x": shares("水_ b", "水b ")[np.newaxis]})
    assert found["text"][0].decode() == "水 b"
    with pytest.raises(EngineFailed, match="a blank and the 3 letters"):
        chain({"x": np.zeros((1, 2, 7), np.float32)})


def test_lines_that_are_unsure_or_empty_are_left_out() -> None:
    values = {
        "text": np.array([b"tide", b"mud", b" "], object), "score": np.array([0.9, 0.2, 0.9]),
        "boxes": np.array([box(0, 0), box(0, 30), box(0, 60)]),
    }  # fmt: skip
    assert Lines().apply(values)["predictions"] == [
        {"text": "tide", "score": 0.9, "box": [[0, 0], [50, 0], [50, 20], [0, 20]]}
    ]
    assert Lines(boxes="").apply(values)["predictions"] == [{"text": "tide", "score": 0.9}]
    assert Lines().apply({"text": [], "score": [], "boxes": []})["predictions"] == []
