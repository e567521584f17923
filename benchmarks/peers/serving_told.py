"""What `peers_serving.py` found, told: the table and the picture of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]

BEGIN, END = "<!-- peers: written by benchmarks/peers_serving.py -->", "<!-- /peers -->"
PICTURE = "images/serving-peers.png"
NAMES = {"mlserver": "MLServer", "kserve": "KServe SDK", "litserve": "LitServe", "bentoml": "BentoML"}
OURS = "Tidemill"


def markdown(record: Record) -> str:
    """The text between the markers."""
    machine, versions = record["machine"], record["versions"]
    known = ", ".join(f"{name} {versions[each]}" for each, name in NAMES.items() if each in versions)
    parts = [
        f"Measured {record['when'][:10]} on {machine['cores']} cores of an {machine['cpu']}, load average"
        f" {machine['load_average'][0]:.1f} at its end, {record['rounds']} rounds of {record['seconds']:g} s; {known};"
        f" onnxruntime {versions['onnxruntime']} everywhere. Medians over the rounds.",
        f"![CPU time of a request, by server](images/{Path(PICTURE).name})",
    ]
    for model in record["models"]:
        parts.append(f"**{model['model']}** ({model['about']}), {model['load']}:")
        rows = ["| server | door | CPU µs | to ours, same door | answers/s | p99 ms | errors |", "|" + " --- |" * 7]
        rows += [_row(each) for each in model["sides"]]
        parts.append("\n".join(rows))
        for name, why in model["failed"].items():
            parts.append(f"{name} is not in the table: {_short(why)}")
    return "\n\n".join(parts)


def _row(each: Mapping[str, Any]) -> str:
    server = each["side"].removesuffix(f", {each['door']}")
    over = (each.get("over_ours") or {}).get("cpu_us")
    compared = "" if over is None else f"{over['middle']:.2f} [{over['low']:.2f}, {over['high']:.2f}]"
    errors = sum(each["errors"].values())
    cells = [
        server,
        each["door"],
        _number(each["cpu_us"]),
        compared,
        _number(each["per_second"]),
        _number(each["p99_ms"]),
    ]
    return "| " + " | ".join([*cells, str(errors) if errors else ""]) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _short(why: str) -> str:
    """The line that says most: the last one of an error, without paths."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    line = (errors or lines or ["no reason was told"])[-1]
    return " ".join(word if word.count("/") < 2 else "…" for word in line.split())[:300]


def write(record: Record, docs: Path) -> None:
    """The table between the markers of benchmarks.md, and the picture. Raises `ValueError` without markers."""
    page = docs / "benchmarks.md"
    text = page.read_text("utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:start]}\n{markdown(record)}\n{text[end:]}", "utf-8")
    draw(record, docs / PICTURE)


def draw(record: Record, file: Path) -> None:
    """Bars of CPU time for one request, a panel a model."""
    from matplotlib.figure import Figure

    models = record["models"]
    tallest = max(len(each["sides"]) for each in models)
    figure = Figure(figsize=(4 * len(models) + 1, 0.34 * tallest + 1.2), dpi=110, layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        sides = [each for each in model["sides"] if each["cpu_us"] is not None][::-1]
        values = [each["cpu_us"] for each in sides]
        colours = ["#0f766e" if each["side"].startswith(OURS) else "#94a3b8" for each in sides]
        bars = axes.barh([each["side"] for each in sides], values, color=colours, height=0.7)
        axes.bar_label(bars, [_number(value) for value in values], padding=3, fontsize=7)
        axes.set_title(f"{model['model']}, {model['load']}", fontsize=9)
        axes.set_xlabel("CPU µs for one request", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
