"""A report says what was measured, shows everything as text, and needs nothing beside itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.compress import report as reports
from tidemill.compress.report import words
from tidemill.compress.report.facts import LayerFacts, Speed, best_speeds
from tidemill.compress.report.page import page
from tidemill.core.errors import RefusedModel
from tidemill.repository.lineage import Measured

from . import reports as examples

VOID = {"meta", "br", "img"}


class Nesting(HTMLParser):
    """Every element that is opened is closed, in the right order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "report", [examples.whole(), examples.least(), examples.of_many()], ids=["whole", "least", "many"]
)
def test_a_page_is_whole_and_loads_nothing(report: reports.Report) -> None:
    text = page(report)
    nesting = Nesting()
    nesting.feed(text)
    assert nesting.open == []
    assert not nesting.seen & {"script", "link", "img", "iframe", "object"}
    assert re.findall(r"(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert "nan" not in re.sub(r"<style>.*</style>", "", text, flags=re.S).lower().replace("finance", "")


def test_what_models_and_data_hold_is_shown_and_never_run() -> None:
    text = page(examples.whole())
    assert "<b>minister</b>" not in text
    assert "&lt;b&gt;minister&lt;/b&gt;" in text
    evil = msgspec.structs.replace(
        examples.whole(), name="<script>x</script>", command="</pre><script>", notes=("<img src=x onerror=y>",)
    )
    assert not {"<script", "<img"} & set(re.findall(r"<\w+", page(evil)))


def test_every_figure_of_the_facts_is_on_the_page() -> None:
    report = examples.whole()
    text = page(report)
    for told in ("25.3 %", "23.0 MB", "38.0 MB", "190 ms", "2.7×", "0.9982", "0.9979", "rank 371 of 384",
                 "control flow", "cd" * 32,
                 "12 lines were empty", report.command, "0.9907", "smooth: 0.5"):  # fmt: skip
        assert told in text, told
    assert all(layer.name in text for layer in report.layers)


def test_a_check_that_refused_is_said() -> None:
    report = examples.whole()
    assert not report.met
    assert "refused: time 37.7 %" in page(report)
    kept = msgspec.structs.replace(report, targets=())
    assert kept.met
    assert "refused" not in page(kept)
    lost = msgspec.structs.replace(kept, metric=msgspec.structs.replace(report.metric, kept=0.98))
    assert not lost.met
    assert "refused: keeps 98.00 %" in page(lost)


def test_a_difference_that_may_be_none_is_said() -> None:
    report = examples.whole()
    assert "cannot be told apart" not in page(report)
    unsure = msgspec.structs.replace(report.metric, difference=Measured(-0.001, -0.003, 0.001))
    assert "cannot be told apart" in page(msgspec.structs.replace(report, metric=unsure))


def test_what_was_not_measured_is_said_so() -> None:
    text = page(examples.least())
    assert text.count("not measured") == 3


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    report = examples.whole()
    assert reports.decode(reports.encode(report)) == report
    for body in (b"", b"{}", b"\xff", b"[1]"):
        with pytest.raises(RefusedModel):
            reports.decode(body)


def test_three_files_are_written(tmp_path: Path) -> None:
    paths = reports.write(examples.whole(3), tmp_path / "new")
    assert [path.name for path in paths] == list(reports.FILES)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert paths[0].stat().st_size < 200_000


def test_the_picture_of_the_least_report_is_drawn_too(tmp_path: Path) -> None:
    assert reports.write(examples.least(), tmp_path)[2].stat().st_size > 1000


def test_best_against_best_may_change_the_engine() -> None:
    def speed(engine: str, shape: str, ratio: float, base: float = 1.0) -> Speed:
        return Speed(engine, shape, 10.0, 10.0, Measured(ratio, ratio - 0.1, ratio + 0.1), base)

    best = best_speeds(
        (speed("a", "s", 0.8), speed("b", "s", 0.25, 1.6), speed("a", "t", 2.0), speed("b", "t", 1.0, 0.5))
    )
    told = [(each.engine, each.shape, each.ratio.mean, each.ratio.low) for each in best]
    assert told == [("b", "s", pytest.approx(0.4), pytest.approx(0.24)), ("b", "t", 1.0, 0.9)]


def test_of_one_engine_the_ratio_is_the_one_that_was_taken_in_turns() -> None:
    (best,) = best_speeds((Speed("a", "s", 39.7, 22.7, Measured(0.73, 0.7, 0.8)),))
    assert best.ratio == Measured(0.73, 0.7, 0.8)


@given(st.lists(st.floats(0, 1) | st.none(), min_size=1, max_size=9), st.integers(0, 10**9))
def test_layers_of_any_error_and_size_are_drawn(errors: list[float | None], size: int) -> None:
    layers = tuple(
        LayerFacts(f"l{index}", "MatMul", "m", (2, 2), size, size // 3, 8.0, error_fit=error, error_held=error)
        for index, error in enumerate(errors)
    )
    nesting = Nesting()
    nesting.feed(page(msgspec.structs.replace(examples.least(), layers=layers)))
    assert nesting.open == []


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.size(None), "–"), (words.size(999), "999 B"), (words.size(90_872_531), "90.9 MB"),
        (words.time(0.00085), "850 µs"), (words.time(143.2), "2 min 23 s"), (words.share(0.2532), "25.3 %"),
        (words.share(1.0), "100 %"), (words.times(0.23), "4.3×"), (words.times(1.27), "0.79×"), (words.times(0), "–"),
        (words.error(2.13e-5), "2.1e-05"), (words.error(0.013), "0.013"), (words.signed(-0.5), "−0.5000"),
    ],
)  # fmt: skip
def test_numbers_are_worded(told: str, expected: str) -> None:
    assert told == expected
