"""Drawings are whole SVG and hold no markup of an answer."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tidemill.console import drawings

TIMES = st.tuples(st.floats(0, 1000), st.floats(0, 1000)).map(sorted)
NOTES = st.lists(
    st.tuples(st.integers(-5, 200), st.text(max_size=6), TIMES, st.floats(-1, 2)).map(
        lambda each: (each[0], each[1], each[2][0], each[2][1], each[3])
    ),
    min_size=1,
    max_size=20,
)


def drawn(svg: str, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall(f".//{tag}")  # noqa: S314 - our own


def printable(text: str) -> str:
    return "".join(each for each in text if each.isprintable())


@given(NOTES)
def test_every_note_sounds_within_the_roll(notes: list[tuple[int, str, float, float, float]]) -> None:
    notes = [(midi, printable(name), *rest) for midi, name, *rest in notes]  # type: ignore[misc]
    bars = [each for each in drawn(drawings.piano_roll(notes), "rect") if each.get("class") == "sounds"]
    assert len(bars) == len(notes)
    for bar in bars:
        assert drawings.LEFT <= float(bar.get("x", "0")) <= drawings.WIDTH


def test_a_name_is_text_and_nothing_else() -> None:
    svg = drawings.piano_roll([(60, "<script>", 0.0, 1.0, 1.0)])
    assert "<script>" not in svg
    assert any(each.text == "<script>" for each in drawn(svg, "text"))


@given(st.lists(TIMES.map(lambda each: (each[0], each[1], 1.0)), min_size=1, max_size=9))
def test_every_stretch_is_on_the_line(rows: list[tuple[float, float, float]]) -> None:
    assert len(drawn(drawings.stretches(rows), "rect")) == len(rows)


def test_boxes_lie_in_the_pictures_own_pixels_and_are_numbered() -> None:
    square = ((1.0, 2.0), (30.0, 2.0), (30.0, 9.0), (1.0, 9.0))
    svg = drawings.boxes([square, (), square], 640, 480)
    assert ElementTree.fromstring(svg).get("viewBox") == "0 0 640 480"  # noqa: S314 - our own
    assert [each.get("points") for each in drawn(svg, "polygon")] == ["1,2 30,2 30,9 1,9"] * 2
    assert [each.text for each in drawn(svg, "text")] == ["1", "3"]


def test_a_forecast_goes_on_where_the_past_ended() -> None:
    before = [("2001", 1.0), ("2002", 2.0), ("2003", 3.0), ("2004", 4.0)]
    options = drawings.forecast([("2005", 5.0)], before)
    assert options["xAxis"]["data"] == ["2002", "2003", "2004", "2005"]
    past, ahead = options["series"]
    assert past["data"] == [2.0, 3.0, 4.0, None]
    assert ahead["data"] == [None, None, 4.0, 5.0]
    assert [each["name"] for each in drawings.forecast([("1", 5.0)])["series"]] == ["forecast"]


def test_the_past_is_read_where_it_is_plain_and_left_where_it_is_not() -> None:
    assert drawings.history("date,co2\n2001,1.5\n2002,\n2003,2.5\n") == [("2001", 1.5), ("2003", 2.5)]
    assert drawings.history("a,b,c\n1,2,3\n") == []
    assert drawings.history("") == []
