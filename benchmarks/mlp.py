"""What batching saves: a perceptron 64-1024-1024-10, one row a request, 32 in flight, against onnxruntime alone.

Claim: the server's whole process tree takes at most 75 µs of CPU time a request through V2's binary tensors, without
key and charge; onnxruntime alone, in batches of 1 and of 32, and a bare uvicorn echo are measured in the same rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
import uvloop
from common import HOST, BenchmarkFailed, Tidemill, echo_http, free_port, leave_on_sigterm, tidemill
from made_models import MLP_WIDTHS, lay_out, mlp
from onnxruntime_alone import onnxruntime_side
from report import finish, flags_of
from rounds import Samples, first_answer_http, http_side, interleave, microseconds

from tidemill.client.bench.payload import Payload, payload
from tidemill.core.tensor import Signature, TensorSpec

LIMIT_US = 75
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, MLP_WIDTHS[0])),), (TensorSpec("y", "FP32", (-1, MLP_WIDTHS[-1])),))
BINARY, JSON = "V2 binary, no key, no charge", "V2 JSON, no key, no charge"
FULL, ECHO = "V2 binary, key and charge", "echo of the binary request"
ALONE = {f"onnxruntime, 1 thread, batch {n}": n for n in (1, 8, 32)}


def make_row() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).standard_normal((1, MLP_WIDTHS[0]), np.float32)


def answer_of(body: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The outputs of a binary answer are its last bytes."""
    return np.frombuffer(body[-4 * MLP_WIDTHS[-1] :], np.float32)


async def check(service: Tidemill, asked: Payload, want: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    answer = await first_answer_http(service.url + asked.path, asked.body, service.headers | asked.headers)
    if not np.allclose(answer_of(answer.body), want.ravel(), atol=1e-4):
        raise BenchmarkFailed(f"mlp: differs from onnxruntime by {np.abs(answer_of(answer.body) - want).max()}")


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        file = lay_out(folder / "models", mlp=mlp())["mlp"]
        row = make_row()
        np.save(folder / "row.npy", row)
        port = free_port()
        echo = stack.enter_context(echo_http(port))
        plain = stack.enter_context(tidemill(folder / "models", ["mlp"], "--no-auth", "--no-charge", key=False))
        full = stack.enter_context(tidemill(folder / "models", ["mlp"]))
        binary, text = (payload(door, "mlp", "", SIGNATURE, {"x": row}) for door in ("v2", "v2-json"))
        want = onnxruntime.InferenceSession(str(file)).run(None, {"x": row})[0]
        for service in (plain, full):
            await check(service, binary, want)
        many = flags.in_flight
        sides = [
            http_side(BINARY, plain.server, plain.url + binary.path, binary.body, binary.headers, in_flight=many),
            http_side(JSON, plain.server, plain.url + text.path, text.body, text.headers, in_flight=many),
            http_side(
                FULL, full.server, full.url + binary.path, binary.body, full.headers | binary.headers, in_flight=many
            ),
            http_side(ECHO, echo, f"http://{HOST}:{port}{binary.path}", binary.body, binary.headers, in_flight=many),
        ]
        for name, batch in ALONE.items():
            sides.append(stack.enter_context(onnxruntime_side(name, file, folder / "row.npy", 1, batch, True)))
        return await interleave(sides, flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=32, requests=10_000)
    samples = uvloop.run(measure(flags))
    comparisons = [microseconds(samples, f"MLP through {BINARY}", BINARY, limit=LIMIT_US)]
    comparisons += [microseconds(samples, f"MLP through {name}", name) for name in (JSON, FULL)]
    comparisons += [microseconds(samples, f"MLP by {name}", name) for name in ALONE]
    return finish("mlp", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
