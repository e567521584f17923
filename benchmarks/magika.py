"""What serving adds to a real model: magika, one row a request, against onnxruntime's own CPU time for a row.

Claim: at most 1.04 times the cheapest of onnxruntime's ways to use all cores (its default options or the service's, in
batches of 1 or 8). One thread alone, with a core of the machine idle, is shown beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
import uvloop
from common import BenchmarkFailed, Tidemill, kit_models, leave_on_sigterm, tidemill
from onnxruntime_alone import onnxruntime_side
from report import finish, flags_of
from rounds import Samples, cheapest, compare, first_answer_http, http_side, interleave

PATH = "/v2/models/magika/infer"
WIDTH, PADDING = 2048, 256
BINARY, JSON = "V2 binary", "V2 JSON"
ALL_CORES = {
    f"onnxruntime, {words}, batch {n}": (0, n, spinning)
    for words, spinning in (("default", True), ("no spinning", False))
    for n in (1, 4, 8)
}
ONE_THREAD = {f"onnxruntime, 1 thread, batch {n}": (1, n, True) for n in (1, 4, 8)}
WAYS = ALL_CORES | ONE_THREAD

Row = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


def make_row() -> Row:
    """Shaped as magika's features of a short text: its beginning and its end, the rest padding."""
    row = np.full((1, WIDTH), PADDING, np.int32)
    text = np.frombuffer(b"def half(x: float) -> float:\n    return 0.5 * x\n" * 16, np.uint8)
    row[0, : text.size] = text
    row[0, -text.size :] = text
    return row


def binary_request(row: Row) -> tuple[bytes, dict[str, str]]:
    spec = {"name": "bytes", "shape": [1, WIDTH], "datatype": "INT32", "parameters": {"binary_data_size": row.nbytes}}
    head = json.dumps({"inputs": [spec], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return head + row.tobytes(), headers


def json_request(row: Row) -> tuple[bytes, dict[str, str]]:
    spec = {"name": "bytes", "shape": [1, WIDTH], "datatype": "INT32", "data": row.ravel().tolist()}
    return json.dumps({"inputs": [spec]}, separators=(",", ":")).encode(), {"content-type": "application/json"}


async def check(service: Tidemill, model: Path, row: Row) -> None:
    """The service answers what onnxruntime answers."""
    body, headers = json_request(row)
    answer = await first_answer_http(service.url + PATH, body, service.headers | headers)
    output = json.loads(answer.body)["outputs"][0]
    got = np.array(output["data"], np.float32).reshape(output["shape"])
    want = onnxruntime.InferenceSession(str(model)).run(None, {"bytes": row})[0]
    if not np.allclose(got, want, atol=1e-5):
        raise BenchmarkFailed(f"magika: differs from onnxruntime by {np.abs(got - want).max()}")


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, "magika"))
        model = next(models.glob("magika/*/model.onnx"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        row = make_row()
        np.save(folder / "row.npy", row)
        service = stack.enter_context(tidemill(models, ["magika"]))
        await check(service, model, row)
        sides = []
        for name, (body, content) in ((BINARY, binary_request(row)), (JSON, json_request(row))):
            url, headers = service.url + PATH, service.headers | content
            sides.append(http_side(name, service.server, url, body, headers, in_flight=flags.in_flight))
        for name, (threads, batch, spinning) in WAYS.items():
            side = onnxruntime_side(name, model, folder / "row.npy", threads, batch, spinning)
            sides.append(stack.enter_context(side))
        return await interleave(sides, flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=8, requests=400)
    samples = uvloop.run(measure(flags))
    bar = cheapest(samples, list(ALL_CORES))
    print(f"The bar is the cheapest: {bar}.")
    comparisons = []
    for subject in (BINARY, JSON):
        comparisons.append(compare(samples, f"{subject} over the cheapest onnxruntime", subject, bar, 1.04))
        comparisons += [compare(samples, subject, subject, way) for way in WAYS if way != bar]
    return finish("magika", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
