"""Ours beside MLServer, LitServe, BentoML and KServe's SDK server: the same models and onnxruntime, one worker each.

Each peer has an environment of its own, `.venvs/peer-NAME`, which `make bench-peers` makes. What cannot be installed or
started is told by name with its error. Every server answers rightly before it is measured. The figures are CPU time of
each server's process tree for one request, answers a second, and p99, in interleaved rounds of a closed loop.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvloop
from common import HERE, HOST, BenchmarkFailed, Server, accepts, answers_http, free_port, kit_models, leave_on_sigterm
from common import tidemill as tidemill_service
from made_models import ECHO_WIDTH, MLP_WIDTHS, echo, lay_out, mlp
from magika import make_row as magika_row
from report import machine, versions

from peers import serving_told
from tidemill.client.bench import measure
from tidemill.client.bench.measure import Side
from tidemill.client.bench.meter import Meter
from tidemill.client.bench.payload import Payload, payload
from tidemill.client.bench.plan import Level, Plan
from tidemill.client.bench.statistics import Summary, ratio, summary
from tidemill.client.bench.target import Target
from tidemill.client.result import Answer
from tidemill.core.errors import ServerRefused
from tidemill.core.schemas import message
from tidemill.core.tensor import DATATYPES, Array, Signature, TensorSpec

ROOT = HERE.parent
START_S_MAX = 90.0
MAX_BATCH, BATCH_MS = 32, 2.0
OURS = "Tidemill"
FULL = "Tidemill, with key and charge"


@dataclass(frozen=True, slots=True)
class Case:
    """A model, one row of its input, and how many ask at once."""

    name: str
    about: str
    file: Path
    row: Array
    in_flight: int

    @property
    def signature(self) -> Signature:
        session = onnxruntime.InferenceSession(str(self.file))
        gives = session.get_outputs()[0]
        spec = TensorSpec(session.get_inputs()[0].name, DATATYPES[self.row.dtype], (-1, *self.row.shape[1:]))
        return Signature((spec,), (TensorSpec(gives.name, "FP32", (-1, *gives.shape[1:])),))

    def right(self) -> Array:
        """What onnxruntime itself answers."""
        session = onnxruntime.InferenceSession(str(self.file))
        found: Array = session.run(None, {session.get_inputs()[0].name: self.row})[0]
        return found


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of others: its name, the file that starts it, the doors that it is asked through."""

    name: str
    package: str
    doors: tuple[str, ...]
    path: str = ""
    ready: str = "/v2/health/ready"

    def python(self, environments: Path) -> Path:
        return environments / f"peer-{self.package}" / "bin" / "python"


PEERS = (
    Peer("MLServer", "mlserver", ("v2-json", "v2-grpc")),
    Peer("KServe SDK", "kserve", ("v2", "v2-json", "v2-grpc")),
    Peer("LitServe", "litserve", ("json",), "/predict", "/health"),
    Peer("BentoML", "bentoml", ("json",), "/predict", "/readyz"),
)
OUR_DOORS = ("v2", "v2-json", "v2-grpc")
LIKE = {"json": "v2-json"}
"""Door of a peer -> ours that it is held against, where it is not the same."""


def cases(models: Path, kit: Path) -> list[Case]:
    random = np.random.default_rng(5)
    made = lay_out(models, echo=echo(), mlp=mlp())
    magika = models / "magika" / "1" / "model.onnx"
    magika.parent.mkdir(parents=True)
    shutil.copy(next(kit.glob("magika/*/model.onnx")), magika)
    return [
        Case("echo", "FP32 [1,16] given back", made["echo"], random.standard_normal((1, ECHO_WIDTH), np.float32), 32),
        Case("mlp", "64-1024-1024-10", made["mlp"], random.standard_normal((1, MLP_WIDTHS[0]), np.float32), 32),
        Case("magika", "INT32 [1,2048], 7 ms a row", magika, magika_row(), 8),
    ]


@contextmanager
def started(peer: Peer, case: Case, environments: Path) -> Iterator[tuple[Server, tuple[int, int]]]:
    """The peer, serving the model of `case`; its ports. Raises `BenchmarkFailed`."""
    python = peer.python(environments)
    if not python.is_file():
        raise BenchmarkFailed(f"not installed: {python} is not there")
    http_port, grpc_port = free_port(), free_port()
    command = [str(python), str(HERE / "peers" / f"serve_{peer.package}.py"), str(case.file), "--name", case.name]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    command += ["--max-batch", str(MAX_BATCH), "--batch-ms", str(BATCH_MS)]
    ready = [answers_http(f"http://{HOST}:{http_port}{peer.ready}")]
    if "v2-grpc" in peer.doors:
        ready.append(accepts(grpc_port))
    with Server(peer.name, command, ready) as server:
        yield server, (http_port, grpc_port)


def side(label: str, door: str, ports: tuple[int, int], pid: int, asked: Payload, key: dict[str, str]) -> Side:
    port = ports[1] if door == "v2-grpc" else ports[0]
    base = f"{HOST}:{port}" if door == "v2-grpc" else f"http://{HOST}:{port}"
    spoken = "v2-json" if door == "json" else door
    where = Target(f"{label}, {door}", spoken, base, HOST, port, "", "", key, "", (pid,))
    return Side(where, [asked], Meter(where))


def request(door: str, case: Case, signature: Signature, path: str) -> Payload:
    if door == "json":
        body = json.dumps({"x": case.row.tolist()}, separators=(",", ":")).encode()
        return Payload(path, body, {"content-type": "application/json"})
    return payload(door, case.name, "", signature, {signature.inputs[0].name: case.row})


def answered(door: str, answer: Answer, width: int) -> Array:
    """The values of an answer in any of the doors."""
    if door == "v2-grpc":
        reply = message("inference.ModelInferResponse").FromString(answer.body)
        if reply.raw_output_contents:
            return np.frombuffer(reply.raw_output_contents[0], np.float32)
        return np.array(reply.outputs[0].contents.fp32_contents, np.float32)
    if door == "v2":
        return np.frombuffer(answer.body[-4 * width :], np.float32)
    told: Any = json.loads(answer.body)
    if door == "v2-json":
        told = told["outputs"][0]["data"]
    elif isinstance(told, dict):
        told = told["y"]
    return np.array(told, np.float32).ravel()


async def checked(one: Side, door: str, case: Case) -> None:
    """Its answer is onnxruntime's. Raises `BenchmarkFailed`."""
    want = case.right().ravel()
    try:
        got = answered(door, await measure.first_answer(one), want.size)
    except (ServerRefused, KeyError, IndexError, TypeError, ValueError) as error:
        raise BenchmarkFailed(f"its answer cannot be read: {error}") from error
    if got.shape != want.shape or not np.allclose(got, want, atol=1e-4):
        raise BenchmarkFailed(f"it answers {got[:4]} where onnxruntime answers {want[:4]}")


async def measured(case: Case, flags: argparse.Namespace) -> dict[str, Any]:
    """Every server beside every other on one model."""
    signature = case.signature
    failed: dict[str, str] = {}
    sides: list[tuple[str, Side]] = []
    with ExitStack() as stack:
        for label, key, extra in ((OURS, False, ("--no-auth", "--no-charge")), (FULL, True, ())):
            models = case.file.parents[2]
            service = stack.enter_context(tidemill_service(models, [case.name], *extra, key=key))
            for door in OUR_DOORS if not key else ("v2",):
                asked = request(door, case, signature, "")
                ports = (service.http_port, service.grpc_port)
                one = side(label, door, ports, service.server.pid, asked, service.headers)
                await checked(one, door, case)
                sides.append((door, one))
        for peer in PEERS:
            if flags.peer and peer.package not in flags.peer:
                continue
            try:
                server, peer_ports = stack.enter_context(started(peer, case, flags.environments))
            except BenchmarkFailed as error:
                failed[peer.name] = str(error)[-1500:]
                continue
            for door in peer.doors:
                one = side(peer.name, door, peer_ports, server.pid, request(door, case, signature, peer.path), {})
                try:
                    await checked(one, door, case)
                except BenchmarkFailed as error:
                    failed[f"{peer.name}, {door}"] = f"{error}\n{server.log_tail()}"[-1500:]
                    continue
                sides.append((door, one))
        level = Level(in_flight=case.in_flight)
        plan = Plan((level,), flags.rounds, flags.seconds, 1_000_000, flags.warm_seconds, 1, 60.0)
        told = partial(print, "  ", case.name, flush=True)
        await measure.run([one for _, one in sides], plan, None, lambda label, done, count: told(label, done, count))
    ours = {door: one.samples[level] for door, one in sides if one.label.startswith(f"{OURS}, v2")}
    lines = []
    for door, one in sides:
        found: Summary = summary(one.label, level, one.samples[level])
        like = ours.get(LIKE.get(door, door))
        compared = None if like is None or like is one.samples[level] else ratio(level, one.samples[level], like)
        lines.append({"door": door, **msgspec.to_builtins(found), "over_ours": msgspec.to_builtins(compared)})
    return {"model": case.name, "about": case.about, "load": level.label, "sides": lines, "failed": failed}


def main() -> int:
    leave_on_sigterm()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.resolve()), os.environ.get("PYTHONPATH"))))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one side in one round")
    parser.add_argument("--warm-seconds", type=float, default=1.0)
    parser.add_argument(
        "--model", action="append", choices=("echo", "mlp", "magika"), help="only this; may be repeated"
    )
    parser.add_argument("--peer", action="append", choices=[each.package for each in PEERS], help="only this peer")
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="folder with peer-NAME")
    parser.add_argument("--models", type=Path, help="repository to keep the kit's model in, instead of a new one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for peers.json")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument("--table-only", action="store_true", help="measure nothing, write the document")
    flags = parser.parse_args()
    file = flags.results / "peers.json"
    record = json.loads(file.read_text()) if flags.table_only else _run(flags)
    if not flags.no_write and not flags.table_only:
        flags.results.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1) + "\n")
    print(serving_told.markdown(record))
    if not flags.no_write:
        serving_told.write(record, ROOT / "docs")
    return 0


def _run(flags: argparse.Namespace) -> dict[str, Any]:
    found = []
    with ExitStack() as stack:
        kit = stack.enter_context(kit_models(flags.models, "magika"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        for case in cases(folder, kit):
            if not flags.model or case.name in flags.model:
                print(case.name, flush=True)
                found.append(uvloop.run(measured(case, flags)))
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions() | _peer_versions(flags.environments),
        "rounds": flags.rounds,
        "seconds": flags.seconds,
        "max_batch": MAX_BATCH,
        "models": found,
    }


def _peer_versions(environments: Path) -> dict[str, str]:
    """Of the peers that are there."""
    found = {}
    for peer in PEERS:
        folder = environments / f"peer-{peer.package}"
        places = sorted(folder.glob(f"lib/*/site-packages/{peer.package}-*.dist-info"))
        if places:
            found[peer.package] = places[0].name.removesuffix(".dist-info").partition("-")[2]
    return found


if __name__ == "__main__":
    sys.exit(main())
