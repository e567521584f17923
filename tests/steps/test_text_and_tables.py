from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tidemill.core.errors import BadMedia
from tidemill.steps.chain import build
from tidemill.steps.forecast import Forecast, following
from tidemill.steps.step import Bounds, Place

CSV = "date,co2,other\n1999-12-18,368.1,a\n1999-12-25,368.3,b\n"


def run(folder: Path, data: bytes, *tables: dict[str, Any], text_bytes_max: int = 1000) -> dict[str, Any]:
    return build(tables, Place(folder, Bounds(text_bytes_max=text_bytes_max)))({"data": data})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"caf\xe9 au lait", "UTF-8; byte 3 is e9"),
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"a" * 1001, "1001 bytes, the most allowed is 1000"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadMedia, match=says):
        run(Path(), data, {"step": "text"})


def test_tokens_are_those_of_the_library_cut_and_filled_up(kit: Path) -> None:
    texts = ["The mill turns with the tide.", "water " * 100]
    found = run(
        kit / "minilm/1",
        "\n".join(texts).encode(),
        {"step": "text", "lines": True},
        {"step": "tokenise", "tokens_max": 12},
    )
    plain = Tokenizer.from_file(str(kit / "minilm/1/tokenizer.json"))
    plain.no_padding()
    plain.no_truncation()
    first = plain.encode(texts[0]).ids
    assert found["input_ids"].shape == (2, 12)
    assert found["input_ids"][0].tolist() == first + [0] * (12 - len(first))
    assert found["attention_mask"].sum(axis=1).tolist() == [len(first), 12]
    assert found["input_ids"].dtype == found["token_type_ids"].dtype == np.int64


def csv(content: str, **options: Any) -> dict[str, Any]:
    return run(Path(), content.encode(), {"step": "csv", "columns": ["co2"], **options})


def test_columns_are_numbers_and_the_index_is_text() -> None:
    found = csv(CSV, index="date")
    assert found["co2"].tolist() == [368.1, 368.3]
    assert found["index"] == ["1999-12-18", "1999-12-25"]


def test_a_missing_number_is_refused_or_lies_between_its_neighbours() -> None:
    gap = "co2\n1\n\nNA\n3\n"
    with pytest.raises(BadMedia, match="row 2 of the CSV has nothing"):
        csv(gap)
    assert csv(gap, missing="interpolate")["co2"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "one column 'co2'; its first line has none"),
        ("date,co2\n", "no rows"),
        ("date,CO2\n1,2\n", "one column 'co2'; its first line has date, CO2"),
        ("co2,co2\n1,2\n", "one column 'co2'"),
        ("date,co2\n1,much\n", "row 1 of the CSV has 'much' in the column 'co2', expected a number"),
        ("co2\n1\ninf\n", "row 2 .* finite"),
        ("co2,b\n1\n", "line 2 of the CSV has 1 fields, its first line 2"),
        ('co2\n"1\n', "cannot be read"),
        ("co2\n1e999\n", "finite"),
        ("co2\n" + "1\n" * 600, "text-bytes-max"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(content: str, says: str) -> None:
    with pytest.raises(BadMedia, match=says):
        csv(content)


def test_only_empty_numbers_are_no_column() -> None:
    with pytest.raises(BadMedia, match="holds no number"):
        csv("co2,b\n,1\n,2\n", missing="interpolate")


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_refused(content: str) -> None:
    with contextlib.suppress(BadMedia):
        csv(content, missing="interpolate")
    with contextlib.suppress(BadMedia):
        csv("co2,b\n" + content, missing="interpolate", index="b")


@pytest.mark.parametrize(
    ("index", "then"),
    [
        (["1999-12-18", "1999-12-25"], ["2000-01-01", "2000-01-08"]),
        (["19991218", "19991225"], ["20000101", "20000108"]),
        (["2000-11", "2000-12"], ["2001-01", "2001-02"]),
        (["1999", "2001"], ["2003", "2005"]),
        (["2000-01-01 00:00:00", "2000-01-01 06:00:00"], ["2000-01-01 12:00:00", "2000-01-01 18:00:00"]),
        (["7", "9"], ["11", "13"]),
        (["monday", "tuesday"], None),
        (["1999-12-18"], None),
        ([], None),
    ],
)
def test_dates_go_on_as_they_went(index: list[str], then: list[str] | None) -> None:
    assert following(index, 2) == then


def test_a_forecast_says_when() -> None:
    values = {"y": np.array([[1.5, 2.5]], np.float32), "index": ["2000-01", "2000-02"]}
    assert Forecast(input="y").apply(values)["predictions"] == [
        {"index": "2000-03", "step": 1, "value": 1.5},
        {"index": "2000-04", "step": 2, "value": 2.5},
    ]
    assert Forecast(input="y").apply({"y": values["y"], "index": None})["predictions"][0] == {"step": 1, "value": 1.5}
    with pytest.raises(BadMedia, match="expected one that rises"):
        following(["2000-02", "2000-01"], 1)
