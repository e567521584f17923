"""What `llm.py` found: claims held against their limits, kept in results/llm.json, and told in docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, str | float]

BEGIN, END = "<!-- llm: written by benchmarks/llm.py -->", "<!-- /llm -->"


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure a round, of which the median is held against the limit; `worst` holds the highest against it."""

    claim: str
    values: Sequence[float]
    limit: float
    least: bool = False
    """Whether the limit is the least that is claimed, and not the most."""
    worst: bool = False

    @property
    def value(self) -> float:
        return max(self.values) if self.worst else statistics.median(self.values)

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Found:
    """One part of the benchmark: what it claims, and figures in rows that have the same columns."""

    claims: list[Claim]
    rows: list[Row] = field(default_factory=list)


def plain(found: Found, origin: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, Any]:
    return {
        **origin,
        "settings": dict(settings),
        "claims": [
            {
                "claim": each.claim,
                "value": round(each.value, 4),
                "values": [round(value, 4) for value in each.values],
                "limit": each.limit,
                "least": each.least,
                "holds": each.holds,
            }
            for each in found.claims
        ],
        "rows": found.rows,
    }


def keep(file: Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `parts` beside those that an earlier run found; returns all of them."""
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    known |= parts
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1) + "\n")
    return known


def write(parts: Mapping[str, Any], page: Path) -> None:
    """The tables between the markers of `page`. Raises `ValueError` without markers."""
    text = page.read_text("utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:start]}\n{markdown(parts)}\n{text[end:]}", "utf-8")


def markdown(parts: Mapping[str, Any]) -> str:
    lines = ["| claim | measured | lowest to highest round | limit | |", "|" + " --- |" * 5]
    for part in parts.values():
        lines += [_claim(each) for each in part["claims"]]
    paragraphs = ["\n".join(lines)]
    for name, part in parts.items():
        machine, versions = part["machine"], part["versions"]
        settings = ", ".join(f"{word.replace('_', ' ')} {value}" for word, value in part["settings"].items())
        engines = ", ".join(f"{each} {versions[each]}" for each in ("openvino-genai", "llama.cpp") if each in versions)
        paragraphs.append(
            f"Part `{name}`: {part['when'][:10]}, {machine['cores']} cores of an {machine['cpu']}, load average"
            f" {machine['load_average'][0]:.1f} at its end; {settings}; {engines}."
        )
        if part["rows"]:
            paragraphs.append(_table(part["rows"]))
    return "\n\n".join(paragraphs)


def _claim(each: Mapping[str, Any]) -> str:
    low, high = min(each["values"]), max(each["values"])
    bound = "at least" if each["least"] else "at most"
    met = "" if each["holds"] else "not met"
    value = f"**{number(each['value'])}**"
    return f"| {each['claim']} | {value} | {number(low)} to {number(high)} | {bound} {each['limit']:g} | {met} |"


def _table(rows: Sequence[Mapping[str, str | float]]) -> str:
    titles = list(rows[0])
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for row in rows:
        cells = [each if isinstance(each, str) else number(each) for each in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
