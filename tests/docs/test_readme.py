"""The two READMEs say the same."""

from __future__ import annotations

import re

from tidemill.kit.catalogue import CATALOGUE

from .pages import README, README_ZH, ROOT, blocks, headings, links, prose

SOURCE = ROOT / "src/tidemill"


def test_both_have_the_same_sections() -> None:
    levels = [[len(line) - len(line.lstrip("#")) for line in headings(page)] for page in (README, README_ZH)]
    assert levels[0] == levels[1]
    assert len(levels[0]) > 10


def test_both_have_the_same_blocks() -> None:
    texts = [
        [(each.language, each.kind, each.text, each.answer) for each in blocks(page)] for page in (README, README_ZH)
    ]
    assert texts[0] == texts[1]


def test_both_lead_to_the_same_places_in_the_same_order() -> None:
    led = [[each for each in links(page) if not each.startswith("README")] for page in (README, README_ZH)]
    assert led[0] == led[1]


def test_both_hold_the_same_code_words() -> None:
    words = [sorted(re.findall(r"`[^`\n]+`", prose(page))) for page in (README, README_ZH)]
    assert words[0] == words[1]


def test_the_picture_of_the_way_names_files_that_are_there() -> None:
    (picture,) = (each.text for each in blocks(README) if "doors/hot.py" in each.text)
    named = set(re.findall(r"[a-z_]+(?:/[a-z_]+)+\.py", picture))
    assert len(named) > 12
    assert {each for each in named if not (SOURCE / each).is_file()} == set()


def test_every_model_of_the_kit_is_told_with_source_and_licence() -> None:
    told = (ROOT / "docs/kit.md").read_text("utf-8")
    for model in CATALOGUE.values():
        (line,) = (each for each in told.splitlines() if each.startswith(f"| `{model.name}` |"))
        assert model.licence in line
        assert model.wheel is None or f"`{model.wheel.requirement}`" in line
