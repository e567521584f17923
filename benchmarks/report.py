"""What a benchmark leaves behind: a table on stdout and a JSON file that names commit, machine and versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from common import HERE
from rich.console import Console
from rich.table import Table
from rounds import Comparison, Sample, Samples

LIBRARIES = ("grpcio", "httptools", "msgspec", "numpy", "onnxruntime", "orjson", "protobuf", "uvicorn", "uvloop")
CHECK_REFUSED = 3


def flags_of(about: str | None, *, in_flight: int, requests: int, rounds: int = 5) -> argparse.Namespace:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--requests", type=int, default=requests, help="of one side in one round")
    parser.add_argument("--warm", type=int, help="requests of one side before the first round")
    parser.add_argument("--in-flight", type=int, default=in_flight)
    parser.add_argument("--models", type=Path, help="repository to keep the models in, instead of a new one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for NAME.json")
    parser.add_argument("--open", action="store_true", help="gRPC: a service without key and charge")
    parser.add_argument("--no-write", action="store_true", help="only print")
    flags = parser.parse_args()
    if min(flags.rounds, flags.requests, flags.in_flight) < 1:
        parser.error("--rounds, --requests and --in-flight must be at least 1")
    if flags.warm is None:
        flags.warm = max(flags.requests // 10, flags.in_flight)
    return flags


def finish(name: str, flags: argparse.Namespace, samples: Samples, comparisons: Sequence[Comparison]) -> int:
    """Print, write, and give the exit code: 3 when a ratio is above its limit."""
    show(samples, comparisons)
    if not flags.no_write:
        flags.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record(name, flags, samples, comparisons), indent=1)
        (flags.results / f"{name}.json").write_text(text + "\n")
    return 0 if all(each.holds for each in comparisons) else CHECK_REFUSED


def show(samples: Samples, comparisons: Sequence[Comparison]) -> None:
    console = Console(width=None if os.isatty(1) else 140)
    sides = Table("side", title="medians over the rounds")
    for title in ("CPU µs", "lowest", "highest", "requests/s", "p50 ms", "p99 ms"):
        sides.add_column(title, justify="right")
    for side, taken in samples.items():
        cpu = [sample.cpu_us for sample in taken]
        walls = (_median(taken, field) for field in ("per_second", "p50_ms", "p99_ms"))
        figures = [f"{statistics.median(cpu):.1f}", f"{min(cpu):.1f}", f"{max(cpu):.1f}"]
        sides.add_row(side, *figures, *("" if wall is None else f"{wall:.4g}" for wall in walls))
    console.print(sides)
    ratios = Table("claim", "baseline", title="CPU time, medians of the rounds")
    for title in ("ratio or µs", "lowest", "highest", "limit"):
        ratios.add_column(title, justify="right")
    ratios.add_column("")
    for each in comparisons:
        verdict = "" if each.limit is None else "within" if each.holds else "ABOVE"
        figures = [_figure(value, each.unit) for value in (each.ratio, min(each.ratios), max(each.ratios))]
        baseline = f"less {each.baseline}" if each.unit and each.baseline else each.baseline
        ratios.add_row(each.claim, baseline, *figures, "" if each.limit is None else f"{each.limit}", verdict)
    console.print(ratios)


def record(
    name: str, flags: argparse.Namespace, samples: Samples, comparisons: Sequence[Comparison]
) -> dict[str, object]:
    """The content of `results/NAME.json`."""
    return {
        "name": name,
        **origin(),
        "settings": {word: getattr(flags, word) for word in ("rounds", "requests", "warm", "in_flight")},
        "comparisons": [
            {
                "claim": each.claim,
                "subject": each.subject,
                "baseline": each.baseline,
                "unit": each.unit,
                "ratio": round(each.ratio, 4),
                "ratios": [round(ratio, 4) for ratio in each.ratios],
                "limit": each.limit,
                "holds": each.holds,
            }
            for each in comparisons
        ],
        "sides": {
            side: {
                "cpu_us": round(statistics.median(sample.cpu_us for sample in taken), 2),
                "samples": [_plain(sample) for sample in taken],
            }
            for side, taken in samples.items()
        },
    }


def origin() -> dict[str, Any]:
    """When, of which commit and on which machine something was measured, said when it ends."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "tree_changed": bool(_git("status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results")),
        "machine": machine(),
        "versions": versions(),
    }


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit else f"{value:.3f}"


def machine() -> dict[str, object]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(each, 2) for each in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip()


def _median(taken: Sequence[Sample], field: str) -> float | None:
    values = [value for sample in taken if (value := getattr(sample, field)) is not None]
    return statistics.median(values) if values else None


def _plain(sample: Sample) -> dict[str, float]:
    fields = ("cpu_us", "per_second", "p50_ms", "p99_ms")
    return {field: round(value, 3) for field in fields if (value := getattr(sample, field)) is not None}
