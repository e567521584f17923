"""One model of the kit: its rows, and what a file made from it is worth on each engine; in the benchmark's process."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from peers.cases import CNN, MINILM
from tidemill.compress import data as sources
from tidemill.compress import measure
from tidemill.compress.evaluate import Judge
from tidemill.compress.figures import timed_feeds
from tidemill.compress.measure_child import MODULES
from tidemill.core.errors import TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Array, Signature
from tidemill.engine import onnx as onnx_engine
from tidemill.kit.datasets import data as kit_data

BF16 = "peers.openvino_bf16"
ENGINES = ("onnxruntime", "openvino", BF16)
TITLES = {"onnxruntime": "onnxruntime", "openvino": "OpenVINO", BF16: "OpenVINO bf16"}
DATA = {MINILM: ("lee_background.txt", "lee.txt", "cosine"), CNN: ("fashion", "", "accuracy")}
SHAPES = {MINILM: ((1, 16), (8, 128)), CNN: ((16, 1),)}
ROUNDS = 99
"""At most; what bounds them for larger models are the seconds."""
SAID_CHARS_MAX = 300
FEWER_ROWS = {MINILM: 200}
"""Of texts all are learned from with seed 0; so that another seed has other rows, it draws as many of them."""


def rows_of(model: str, seed: int) -> int:
    return FEWER_ROWS.get(model, 1_000) if seed else 1_000


def portable(words: str) -> str:
    """Without folders, which mean nothing elsewhere."""
    return re.sub(r"(?<![\w.])/[^\s:'\"]*/", "", words)[:SAID_CHARS_MAX]


@dataclass(frozen=True)
class Subject:
    """`seconds` bounds the time that is spent on timing one file."""

    name: str
    path: Path
    seconds: float

    @cached_property
    def threads(self) -> int:
        return len(os.sched_getaffinity(0))

    @cached_property
    def signature(self) -> Signature:
        opened = onnx_engine.load(_package(self.path), self.threads)
        opened.close()
        return opened.signature

    def rows(self, seed: int, batch: int = 16) -> sources.Data:
        """The same rows that `tidemill compress` takes with this seed."""
        source, held, _ = DATA[self.name]
        tokenizer = self.path.with_name("tokenizer.json")
        limits = sources.Limits(seed=seed, rows_max=rows_of(self.name, seed), batch=batch)
        return sources.load(
            kit_data(source), self.signature, tokenizer if tokenizer.is_file() else None, limits,
            held=kit_data(held) if held else None,
        )  # fmt: skip

    def write_rows(self, seed: int, folder: Path) -> str:
        """A file for each batch to learn from; gives the digest of all rows."""
        data = self.rows(seed)
        done = folder / "sha256"
        if not done.is_file() or done.read_text() != data.sha256():
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                file.unlink()
            for at, feeds in enumerate(data.fit):
                np.savez(folder / f"{at:05}.npz", **feeds)  # type: ignore[arg-type]
            done.write_text(data.sha256())
        return data.sha256()

    @cached_property
    def held(self) -> sources.Data:
        return self.rows(0, batch=250 if self.name == CNN else 16)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.path, self.held, DATA[self.name][2], threads=self.threads)

    @cached_property
    def size_bytes(self) -> int:
        return size_on_disk(self.path)

    def judged(self, file: Path) -> dict[str, dict[str, Any]]:
        """For each engine: what is lost, and on each held-out row; or why it cannot be told."""
        found: dict[str, dict[str, Any]] = {}
        for engine in ENGINES:
            if file.suffix == ".xml" and engine == "onnxruntime":
                found[engine] = {"reason": "onnxruntime reads no OpenVINO IR"}
                continue
            try:
                quality = self.judge.quality(_OnEngine(file, engine, self.threads))
            except TidemillError as error:
                found[engine] = {"reason": portable(error.message.partition("\n")[0])}
                continue
            compared = self.judge.compare(quality)
            unit = 100.0 if self.name == CNN else 1.0
            found[engine] = {
                "metric": quality.mean,
                "lost": -unit * compared.difference,
                "low": -unit * compared.high,
                "high": -unit * compared.low,
                "per_row": unit * (self.judge.base.per_row - quality.per_row),
            }
        return found

    def timed(self, file: Path) -> dict[str, dict[str, Any]]:
        """For each shape and engine: the time over onnxruntime's own in float32, taken in turns; or why it has none."""
        return self.timed_together({"file": file}, self.seconds)["file"]

    def timed_together(self, files: Mapping[str, Path], seconds: float) -> dict[str, dict[str, dict[str, Any]]]:
        """The same of several files, all of which take turns."""
        feeds = timed_feeds(self.held, self.signature, SHAPES[self.name])
        same = [name for name, file in files.items() if file == self.path]
        models = {"": self.path} | {name: file for name, file in files.items() if name not in same}
        found: dict[str, dict[str, dict[str, Any]]] = {name: {shape: {} for shape in feeds} for name in files}
        for each in measure.latency(models, feeds, ENGINES, self.threads, ROUNDS, seconds):
            if each.wall_ratio is None:
                told: dict[str, Any] = {"reason": portable(each.reason.partition("\n")[0])}
            else:
                ratio, low, high = each.wall_ratio
                told = {"ratio": ratio, "low": low, "high": high, "rounds": each.rounds}
                told["cpu"] = each.cpu_ratio[0] if each.cpu_ratio else None
            for name in [each.model] if each.model else same:
                found[name][each.feeds][each.engine] = told
        return found


class _OnEngine:
    """What `Judge` needs of a model: a session."""

    def __init__(self, file: Path, engine: str, threads: int) -> None:
        self._loaded = _module(engine).load(_package(file), threads)

    def session(self, outputs: Sequence[str] | None = None, threads: int = 2) -> _OnEngine:
        return self

    def run(self, names: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        answers = self._loaded.predict(feeds, tuple(names))
        return [answers[name] for name in names]


def _module(engine: str) -> Any:
    return importlib.import_module(MODULES.get(engine, engine))


def _package(file: Path) -> ModelPackage:
    return ModelPackage(file.stem, 1, file, "onnx", file.stat().st_size)


def size_on_disk(file: Path) -> int:
    if file.suffix == ".xml":
        return file.stat().st_size + file.with_suffix(".bin").stat().st_size
    return measure.size_on_disk(file)
