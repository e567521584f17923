"""Every compression method on the kit's MiniLM and its CNN, by the command that a user types; writes the tables of
docs/compression.md.

Each case is one `tidemill compress … --json` on held-out rows. What was measured is kept in results/compress.json and
not measured again, so that an interrupted run takes up where it stopped; `--again` measures anew. A limit is checked
for each case that has one; exit code 3 says that one was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import HERE, BenchmarkFailed, kit_models, leave_on_sigterm
from compress_baselines import BASELINES, measured
from report import CHECK_REFUSED, machine, versions

DOCUMENT = HERE.parent / "docs" / "compression.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
MINILM, CNN = "minilm", "fashion-cnn"
TEXTS = ("--data", "lee_background.txt", "--held", "lee.txt", "--metric", "cosine")
PICTURES = ("--data", "fashion", "--metric", "accuracy")
CASE_S_MAX = 3 * 3600.0
HALF = "laplace, half of the weights"


@dataclass(frozen=True)
class Case:
    """One line of a table. Limits: `metric` at least, for MiniLM the cosine; `lost` points of accuracy at most; `size`
    a share of float32 at most; `time` of onnxruntime's own in float32 at most, on the better engine, and `own_time` on
    onnxruntime (both at `shape`, where it is named). `rivals` are other lines of its table, or baselines: their metric
    is reached by its best model at `outcome`, or by the best of all where that is ""."""

    name: str
    model: str
    method: str
    options: tuple[str, ...] = ()
    metric: float | None = None
    lost: float | None = None
    size: float | None = None
    time: float | None = None
    own_time: float | None = None
    shape: str = ""
    more: tuple[str, ...] = field(default=())
    rivals: tuple[str, ...] = ()
    outcome: str = ""

    @property
    def command(self) -> list[str]:
        options = [word for option in self.options for word in ("-O", option)]
        data = TEXTS if self.model == MINILM else PICTURES
        return ["compress", self.model, "--method", self.method, *options, *data, *self.more, "-o", self.output]

    @property
    def output(self) -> str:
        return re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.model}-{self.name}").strip("-")

    @property
    def key(self) -> str:
        return shlex.join(self.command)


CASES = (
    Case("int8 static", MINILM, "int8", metric=0.998, size=0.26, time=0.22, own_time=0.40, shape="8 × 128"),
    Case("int8 dynamic", MINILM, "int8", ("dynamic=true",), metric=0.993, time=0.35, shape="1 × 16"),
    Case("adaquant, 4 bits", MINILM, "adaquant", ("bits=4",), metric=0.985),
    Case("gptq, 4 bits", MINILM, "gptq", ("bits=4",), metric=0.98),
    Case("gptq, 4 bits, blocks of 128", MINILM, "gptq", ("bits=4", "block=128")),
    Case("gptq, 4 bits, blocks of 16", MINILM, "gptq", ("bits=4", "block=16")),
    Case("gptq, 8 bits", MINILM, "gptq", ("bits=8", "block=128")),
    Case("kmeans, 16 values a channel", MINILM, "kmeans", metric=0.975),
    Case("two-bit", MINILM, "two-bit", metric=0.75),
    Case("binary", MINILM, "binary", rivals=tuple(BASELINES)),
    Case(HALF, MINILM, "laplace", metric=0.945),
    Case("laplace, 2:4", MINILM, "laplace", ("pattern=2:4",), metric=0.90),
    Case("laplace, half of the FFN", MINILM, "laplace", ("units=ffn",), metric=0.945),
    Case("zero-one", MINILM, "zero-one", rivals=(HALF,)),
    Case("unify", MINILM, "unify", rivals=(HALF,), outcome="50"),
    Case("int8 static", CNN, "int8", lost=0.2),
    Case("adaquant, W4A8", CNN, "adaquant", ("bits=4", "activation_bits=8"), lost=0.5),
    Case("gptq, 4 bits", CNN, "gptq", ("bits=4",)),
    Case("kmeans, 16 values a channel", CNN, "kmeans", lost=0.5),
    Case("two-bit", CNN, "two-bit", lost=4),
    Case("binary", CNN, "binary", rivals=tuple(BASELINES)),
    Case(HALF, CNN, "laplace", lost=0.5),
    Case("laplace, 2:4", CNN, "laplace", ("pattern=2:4",), lost=1),
    Case("laplace, half of the channels", CNN, "laplace", ("units=channels",)),
    Case("laplace, half of the bytes", CNN, "laplace", ("units=channels", "sparsity=0.3", "allocation=curves"), lost=2),
    Case("zero-one", CNN, "zero-one", rivals=(HALF,)),
    Case("unify", CNN, "unify", rivals=(HALF,), outcome="50"),
)


def measure(case: Case, models: Path) -> dict[str, Any]:
    """What the case came to; a method that fails is part of the result."""
    started = time.monotonic()
    command = [sys.executable, "-m", "tidemill", *case.command, "--models", str(models), "--force", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CASE_S_MAX)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {CASE_S_MAX:g} s"}
    if done.returncode in {-2, 130}:
        raise KeyboardInterrupt
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return {
        "models": [_portable(each) for each in json.loads(done.stdout)],
        "took_s": round(time.monotonic() - started, 1),
    }


def _portable(told: dict[str, Any]) -> dict[str, Any]:
    """Without paths, which mean nothing elsewhere."""
    kept = {name: value for name, value in told.items() if name not in {"path", "report"}}
    return kept | {"notes": [re.sub(r"(?:/[^\s/:]+)+/", "", note) for note in told["notes"]]}


def missed(case: Case, results: dict[str, dict[str, Any]]) -> list[str]:
    """The limits that the case does not hold. Of several models the best one is meant."""
    told = results[case.key]
    if "failed" in told:
        return [told["failed"]]
    best = max(told["models"], key=lambda model: model["after"]["mean"])
    found = []
    if case.metric is not None and best["after"]["mean"] < case.metric:
        found.append(f"{best['metric']} {best['after']['mean']:.4f}, at least {case.metric} wanted")
    lost = -100 * best["difference"]["mean"]
    if case.lost is not None and lost > case.lost:
        found.append(f"{lost:.2f} points lost, at most {case.lost} wanted")
    if case.size is not None and best["size_ratio"] > case.size:
        found.append(f"size {best['size_ratio']:.3f}, at most {case.size} wanted")
    for limit, engine in ((case.time, ""), (case.own_time, "onnxruntime")):
        ratio = _time(best, case.shape, engine)
        if limit is not None and ratio is not None and ratio > limit:
            found.append(f"time {ratio:.3f} at {case.shape} on {engine or 'the better engine'}, at most {limit} wanted")
    mine = max(each["after"]["mean"] for each in told["models"] if case.outcome in {"", each["outcome"]})
    for rival in case.rivals:
        theirs = _metric_of(rival, case.model, results)
        if theirs is not None and mine < theirs:
            found.append(f"{best['metric']} {mine:.4f}, and {rival} has {theirs:.4f}")
    return found


def _metric_of(name: str, model: str, results: dict[str, dict[str, Any]]) -> float | None:
    """Of another line of the table, or of a baseline; None where it was not measured."""
    if name in BASELINES:
        told = results.get(_baseline_key(name, model))
        return None if told is None else float(told["after"]["mean"])
    key = next(case.key for case in CASES if (case.name, case.model) == (name, model))
    told = results.get(key)
    return max((float(each["after"]["mean"]) for each in told["models"]), default=None) if told else None


def _baseline_key(name: str, model: str) -> str:
    return f"{model}: {name}"


def _time(model: dict[str, Any], shape: str, engine: str = "") -> float | None:
    """On `engine`, or the fastest, over the original on onnxruntime, at `shape` or the first one; taken in turns."""
    wanted = shape or next((each["shape"] for each in model["speeds"]), "")
    speeds = [each for each in model["speeds"] if each["shape"] == wanted and engine in {"", each["engine"]}]
    return min((float(each["ratio"]["mean"] * each["base"]) for each in speeds), default=None)


def tables(results: dict[str, dict[str, Any]], cases: Sequence[Case] = CASES) -> str:
    """Markdown for the document: one table a model, each line with its command."""
    parts = []
    for model, title in (
        (MINILM, "MiniLM, cosine to float32 on texts that were not learned from"),
        (CNN, "The CNN, accuracy"),
    ):
        lines = [
            f"### {title}\n",
            "| method | size | "
            + ("cosine | time, 1 × 16 | time, 8 × 128 |" if model == MINILM else "accuracy | points lost | time |"),
            "| --- | --- | --- | --- | --- |",
        ]
        told = [line for case in cases if case.model == model for line in _lines(case, results.get(case.key))]
        told += [line for name in BASELINES for line in _baseline_lines(name, model, results)]
        parts.append("\n".join(lines + told) + "\n")
        commands = "\n".join(f"tidemill {case.key}" for case in cases if case.model == model and case.key in results)
        parts.append(f"```bash remote\n{commands}\n```\n")
    when = max((each["when"] for each in results.values()), default="")[:10]
    host = next((each["machine"] for each in results.values()), None)
    if host:
        parts.append(f"Measured {when} on {host['cores']} cores of {host['cpu']}, shared with others.\n")
    return "\n".join(parts)


def _lines(case: Case, told: dict[str, Any] | None) -> Iterator[str]:
    if told is None:
        yield f"| {case.name} | – | – | – | – |"
        return
    if "failed" in told:
        yield f"| {case.name} | failed: {told['failed'].replace('|', '/')} | – | – | – |"
        return
    for model in told["models"]:
        name = case.name + (f": {model['outcome']}" if model["outcome"] else "")
        after = model["after"]
        quality = f"{after['mean']:.4f} ({after['low']:.4f} to {after['high']:.4f})"
        if case.model == MINILM:
            cells = [quality, _ratio(_time(model, "1 × 16")), _ratio(_time(model, "8 × 128"))]
        else:
            change = model["difference"]
            lost = f"{-100 * change['mean']:.2f} ({-100 * change['high']:.2f} to {-100 * change['low']:.2f})"
            cells = [quality, lost, _ratio(_time(model, ""))]
        yield f"| {name} | {model['size_ratio']:.3f} | " + " | ".join(cells) + " |"


def _baseline_lines(name: str, model: str, results: dict[str, dict[str, Any]]) -> Iterator[str]:
    told = results.get(_baseline_key(name, model))
    if told is not None:
        after = told["after"]
        yield f"| {name} | – | {after['mean']:.4f} ({after['low']:.4f} to {after['high']:.4f}) | – | – |"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write_document(results: dict[str, dict[str, Any]], path: Path = DOCUMENT) -> None:
    """Put the tables into their marked place. Raises `BenchmarkFailed` where there is none."""
    text = path.read_text("utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchmarkFailed(f"{path} has no place between {BEGIN} and {END}")
    path.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n{END}{tail}", "utf-8")


def chosen(flags: argparse.Namespace) -> list[Case]:
    return [
        case
        for case in CASES
        if (not flags.model or case.model in flags.model) and (not flags.method or case.method in flags.method)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=(MINILM, CNN), help="only this model; may be given twice")
    parser.add_argument(
        "--method", action="append", choices=sorted({case.method for case in CASES}), help="only this method"
    )
    parser.add_argument("--again", action="store_true", help="measure what was measured already")
    parser.add_argument("--models", type=Path, help="repository to keep the models in, instead of a new one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for compress.json")
    parser.add_argument("--no-write", action="store_true", help="write neither results nor the document")
    flags = parser.parse_args()
    leave_on_sigterm()
    file = flags.results / "compress.json"
    results: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}
    cases = chosen(flags)
    refused = False
    wanted = [case for case in cases if flags.again or case.key not in results or "failed" in results[case.key]]
    with kit_models(flags.models, *sorted({case.model for case in cases})) as models:
        for case in cases:
            if case in wanted:
                print(f"{case.model}, {case.name}: tidemill {case.key}", flush=True)
                results[case.key] = {**measure(case, models), **_about()}
                if not flags.no_write:
                    _keep(file, results)
            for rival in case.rivals:
                key = _baseline_key(rival, case.model)
                if rival in BASELINES and (flags.again or key not in results):
                    path = models / case.model / "1" / "model.onnx"
                    results[key] = {"after": measured(rival, case.model, path), **_about()}
                    if not flags.no_write:
                        _keep(file, results)
            problems = missed(case, results)
            refused = refused or bool(problems)
            print(*_lines(case, results[case.key]), *(f"  MISSED: {each}" for each in problems), sep="\n", flush=True)
    if not flags.no_write:
        known = {case.key for case in CASES} | {
            _baseline_key(name, model) for name in BASELINES for model in (MINILM, CNN)
        }
        write_document({key: told for key, told in results.items() if key in known})
    return CHECK_REFUSED if refused else 0


def _about() -> dict[str, Any]:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"when": when, "machine": machine(), "versions": versions()}


def _keep(file: Path, results: dict[str, dict[str, Any]]) -> None:
    """Whole or not at all: an interruption may come at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(results, indent=1) + "\n")
    fresh.replace(file)


if __name__ == "__main__":
    sys.exit(main())
