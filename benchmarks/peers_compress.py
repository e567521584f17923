"""Other tools of compression beside ours: onnxruntime.quantization, NNCF and Olive on the same models, rows and metric.

A peer's file is made in an environment of its own (.venvs/compress-peers), judged by our judge and timed in turns with
float32 in onnxruntime. Ours are the packages that compress.py published; with another seed they are made anew. What was
measured is kept in results/peers_compress.json, so an interrupted run goes on; the table and the picture go into
docs/compression.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, BenchmarkFailed, kit_models, leave_on_sigterm
from peers.cases import BOTH, CASES, PeerCase
from peers.subject import Subject, portable, rows_of, size_on_disk
from report import machine

from compress import CASES as OUR_CASES
from compress import Case
from peers import told
from tidemill.compress.publish import model_digest

ROOT = HERE.resolve().parent
PYTHON = ROOT / ".venvs" / "compress-peers" / "bin" / "python"
MAKE = ROOT / "benchmarks" / "peers" / "make.py"
DOCUMENT = ROOT / "docs" / "compression.md"
FINALISTS_MAX = 5
FINALS_TIMES = 4
"""As much time as one file gets."""
OURS, PEER = "ours", "peer"
FLOAT32 = "float32"

Record = dict[str, Any]
Made = tuple[Path | None, str]
"""A file, or why there is none."""


class Run:
    """One run over models and seeds.

    `work` holds what comes out, and what each file loses on each held-out row; it may be thrown away, and then
    intervals over the rows are lost of what is not measured again.
    """

    def __init__(self, flags: argparse.Namespace, models: Path, work: Path) -> None:
        self.flags, self.models, self.work = flags, models, work
        self.file: Path = flags.results / "peers_compress.json"
        self.records: dict[str, Record] = json.loads(self.file.read_text()) if self.file.is_file() else {}

        self.files: dict[str, str] = json.loads(self._paths.read_text()) if self._paths.is_file() else {}

    @property
    def _paths(self) -> Path:
        """Where each file lies; of this machine alone, so not among the results."""
        return self.work / "files.json"

    def measure(self, model: str, seed: int) -> None:
        subject = Subject(model, _latest(self.models / model) / "model.onnx", self.flags.seconds)
        rows = self.work / "rows" / f"{model}-{seed}"
        digest = subject.write_rows(seed, rows)
        self._take(subject, seed, PEER, FLOAT32, partial(_there, subject.path), learns=False)
        for case in CASES:
            if model in case.models and _chosen(self.flags.peer, case.name):
                file = partial(self._peer, case, subject, seed, rows)
                self._take(subject, seed, PEER, case.name, file, learns=case.learns)
        for ours in OUR_CASES:
            if ours.model == model and _chosen(self.flags.ours, ours.method):
                self._ours(ours, subject, seed, digest)
        self._finals(subject, seed)

    def _finals(self, subject: Subject, seed: int) -> None:
        """Times of what may be on a front, all in turns with each other: of files that were timed one by one the
        luckiest would be on it, and the side with more files would have more luck."""
        records = {
            key: each for key, each in self.records.items() if (each["model"], each["seed"]) == (subject.name, seed)
        }
        shapes = list(records[_key(subject.name, seed, PEER, FLOAT32)]["times"])
        wanted = told.finalists(list(records.values()), shapes, FINALISTS_MAX) | {(PEER, FLOAT32)}
        chosen = {key: each for key, each in records.items() if (each["side"], each["name"]) in wanted}
        files = {key: Path(self.files[each.get("same_rows", key)]) for key, each in chosen.items()
                 if Path(self.files.get(each.get("same_rows", key), "")).is_file()}  # fmt: skip
        if {key for key, each in records.items() if each.get("finals")} == set(files) and not self.flags.again:
            return
        print(f"{subject.name}, seed {seed}: timing {len(files)} files together", flush=True)
        times = subject.timed_together(files, self.flags.seconds * FINALS_TIMES)
        for key in records:
            self.records[key].pop("finals", None)
            if key in times:
                self.records[key]["finals"] = times[key]
        self._write()

    # -- files ---------------------------------------------------------------------------------------------------------

    def _peer(self, case: PeerCase, subject: Subject, seed: int, rows: Path) -> Made:
        out = self.work / "peers" / f"{subject.name}-{seed}" / _file_name(case.name)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        job = out / "job.json"
        asked = {
            "function": case.function, "options": dict(case.options), "model": str(subject.path.resolve()),
            "learn": str(rows.resolve()), "rows": case.rows, "text": subject.name == "minilm",
            "out": str(out.resolve()),
        }  # fmt: skip
        job.write_text(json.dumps(asked))
        said = _run([str(PYTHON), str(MAKE), str(job.resolve())], self.flags.case_seconds)
        made = next((file for file in (out / "model.onnx", out / "model.xml") if file.is_file()), None)
        return (None if said else made), said

    def _ours(self, case: Case, subject: Subject, seed: int, digest: str) -> None:
        """What is published for `case` with this seed; else it is made: with another seed what seed 0 has, and with
        --make all."""
        published = self._published(self.models, case, subject, seed)
        if not published:
            if not self.flags.make and not (seed and self._had(case)):
                return
            made = self.work / "ours"
            published = {} if self.flags.again else self._published(made, case, subject, seed)
            if not published:
                said = self._make(case, subject, seed, made)
                published = {} if said else self._published(made, case, subject, seed)
                if said:
                    self._keep(_record(case.model, seed, OURS, case.name) | {"failed": said})
        for name, folder in published.items():
            lineage = json.loads((folder / "manifest.json").read_text())["lineage"]
            path = folder / "model.onnx"
            notes = [] if lineage["data"]["sha256"] == digest else ["other rows learned from"]
            self._take(subject, seed, OURS, name, partial(_there, path), mark=model_digest(path), notes=notes)

    def _had(self, case: Case) -> bool:
        """Whether ours was measured with seed 0."""
        return any(
            (each["model"], each["seed"], each["side"]) == (case.model, 0, OURS)
            and (each["name"] == case.name or each["name"].startswith(f"{case.name}: "))
            and "failed" not in each
            for each in self.records.values()
        )

    def _published(self, repository: Path, case: Case, subject: Subject, seed: int) -> dict[str, Path]:
        """Name of each model that came out, and its folder: the latest version."""
        found = {}
        for package in sorted(repository.glob(f"{case.output}*")):
            ending = package.name.removeprefix(case.output)
            if ending and repository == self.work / "ours":
                ending = ending.removeprefix(f"-seed-{seed}")
            version = _latest(package)
            manifest = version / "manifest.json"
            if not manifest.is_file():
                continue
            lineage = json.loads(manifest.read_text()).get("lineage") or {}
            outcome = lineage.get("outcome", "")
            if ending not in {"", f"-{outcome}"} or lineage.get("seed") != seed:
                continue
            if lineage["of"]["sha256"] == model_digest(subject.path):
                found[f"{case.name}: {outcome}" if outcome else case.name] = version
        return found

    def _make(self, case: Case, subject: Subject, seed: int, repository: Path) -> str:
        repository.mkdir(parents=True, exist_ok=True)
        words = case.command
        words[words.index(case.model)] = str(subject.path.resolve())
        words[words.index("-o") + 1] += f"-seed-{seed}"
        words += ["--seed", str(seed), "--rows", str(rows_of(case.model, seed)), "--no-measure", "--force"]
        print(f"{case.model}, seed {seed}, making ours: {case.name}", flush=True)
        command = [sys.executable, "-m", "tidemill", *words, "--models", str(repository)]
        return _run(command, self.flags.case_seconds)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _take(
        self, subject: Subject, seed: int, side: str, name: str, file: Callable[[], Made], *, learns: bool = True,
        mark: str = "", notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Measure what `file()` gives, unless it was measured; a peer that does not learn is the same for each seed."""
        model = subject.name
        key = _key(model, seed, side, name)
        known = self.records.get(key)
        anew = self.flags.again or (self.flags.retry and known is not None and "failed" in known)
        if known and known.get("mark", "") == mark and not anew:
            return
        first = self.records.get(_key(model, 0, side, name))
        if seed and not learns and first:
            self._keep({**first, "seed": seed}, same_rows=_key(model, 0, side, name))
            return
        print(f"{model}, seed {seed}, {side}: {name}", flush=True)
        started = time.monotonic()
        record = _record(model, seed, side, name) | {"mark": mark, "notes": list(notes), "machine": machine()}
        path, said = file()
        record["made_s"] = round(time.monotonic() - started, 1)
        if path is None:
            self._keep(record | {"failed": said or "nothing came out"})
            return
        self.files[key] = str(path.resolve())
        self._paths.parent.mkdir(parents=True, exist_ok=True)
        self._paths.write_text(json.dumps(self.files, indent=1))
        size = size_on_disk(path)
        judged = subject.judged(path)
        rows = {engine: facts.pop("per_row") for engine, facts in judged.items() if "per_row" in facts}
        np.savez_compressed(self._rows_file(key), **rows)
        self._keep(
            record
            | {"size_bytes": size, "size": size / subject.size_bytes, "lost": judged, "times": subject.timed(path)}
        )
        print(f"  {told.line(self.records[key])}", flush=True)

    def _rows_file(self, key: str) -> Path:
        folder = self.work / "judged"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{_file_name(key)}.npz"

    def per_row(self, record: Record) -> dict[str, Any]:
        """What is lost on each held-out row, by engine; nothing where the work folder has it no more."""
        file = self._rows_file(record.get("same_rows") or _key(*(record[n] for n in ("model", "seed", "side", "name"))))
        if not file.is_file():
            return {}
        with np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}

    def _keep(self, record: Record, same_rows: str = "") -> None:
        record["when"] = datetime.now(UTC).isoformat(timespec="seconds")
        if same_rows:
            record["same_rows"] = same_rows
        if "failed" in record:
            print(f"  failed: {record['failed']}", flush=True)
        self.records[_key(*(record[n] for n in ("model", "seed", "side", "name")))] = record
        self._write()

    def _write(self) -> None:
        """Whole or not at all: an interruption may come at any time."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self.records, indent=1) + "\n")
        fresh.replace(self.file)


def _record(model: str, seed: int, side: str, name: str) -> Record:
    return {"model": model, "seed": seed, "side": side, "name": name}


def _key(model: str, seed: int, side: str, name: str) -> str:
    return f"{model} {seed} {side} {name}"


def _file_name(words: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in words).split())


def _chosen(wanted: Sequence[str] | None, name: str) -> bool:
    return not wanted or any(each.lower() in name.lower() for each in wanted)


def _latest(package: Path) -> Path:
    versions = [each for each in package.iterdir() if each.name.isdigit()] if package.is_dir() else []
    return max(versions, key=lambda each: int(each.name), default=package)


def _there(file: Path) -> Made:
    return file, ""


def _run(command: Sequence[str], seconds: float) -> str:
    """Run to its end, or to that of its time; gives what went wrong, "" for nothing."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code is None:
            return f"took longer than {seconds:g} s"
        if code == 0:
            return ""
        log.seek(0)
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "Exception" in line]
    return portable((errors or lines or [f"exit code {code}"])[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=BOTH, help="only this model; may be given twice")
    parser.add_argument("--seeds", default="0,1,2", help="of the rows to learn from; commas between them")
    parser.add_argument("--peer", action="append", metavar="WORD", help="only peers' cases with this in their name")
    parser.add_argument("--ours", action="append", metavar="METHOD", help="only these methods of ours")
    parser.add_argument("--make", action="store_true", help="make also what is not published of ours")
    parser.add_argument("--again", action="store_true", help="make and measure anew what there is already")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--table-only", action="store_true", help="measure nothing, write the document")
    parser.add_argument("--models", type=Path, help="repository with the models and ours; a new one otherwise")
    parser.add_argument("--work", type=Path, help="folder for what comes out  [default: .venvs/compress-peers/work]")
    parser.add_argument("--case-seconds", type=float, default=1800.0, help="for making one file")
    parser.add_argument("--seconds", type=float, default=25.0, help="for timing one file")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for peers_compress.json")
    parser.add_argument("--no-write", action="store_true", help="do not write the document and the picture")
    flags = parser.parse_args()
    leave_on_sigterm()
    try:
        seeds = [int(word) for word in flags.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds {flags.seeds!r}: give numbers with commas between them")
    if not PYTHON.is_file() and not flags.table_only:
        raise BenchmarkFailed(f"there is no {PYTHON}: make bench-compress-peers makes it")
    # OpenVINO in bfloat16 is a module here, which the process that takes times must find too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.resolve()), os.environ.get("PYTHONPATH"))))
    work = (flags.work or PYTHON.parent.parent / "work").resolve()
    models = flags.model or list(BOTH)
    if flags.table_only:
        run = Run(flags, flags.models or Path(), work)
    else:
        with kit_models(flags.models, *models) as repository:
            run = Run(flags, repository, work)
            for model in models:
                for seed in seeds:
                    run.measure(model, seed)
    summary = told.summarised(list(run.records.values()), run.per_row)
    print(told.markdown(summary, unfinished=True))
    if not flags.no_write:
        told.write(summary, DOCUMENT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
