"""The documents, their code blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import needs

ROOT = needs.ROOT
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
WRITTEN = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/reference/admin-api.md"]
"""Those whose blocks are run; the Chinese README has the same."""
EVERY = [
    *WRITTEN, README_ZH, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs/decisions").glob("*.md")),
    *sorted(each for each in (ROOT / "docs/reference").glob("*.md") if each.name != "admin-api.md"),
]  # fmt: skip
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<to>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block; `answer` is what the block behind it says that this one prints."""

    where: str
    language: str
    kind: str
    text: str
    answer: str | None = None


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found: list[Block] = []
    for fence in _FENCE.finditer(text):
        language, _, kind = fence["info"].strip().partition(" ")
        if (language, kind) == ("text", "answer"):
            asked = found.pop()
            found.append(Block(asked.where, asked.language, asked.kind, asked.text, fence["text"]))
        else:
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(f"{page.relative_to(ROOT)}:{line}", language, kind, fence["text"]))
    return found


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def headings(page: Path) -> list[str]:
    return [line for line in prose(page).splitlines() if line.startswith("#")]


def links(page: Path) -> list[str]:
    return [found["to"] for found in _LINK.finditer(prose(page))]
