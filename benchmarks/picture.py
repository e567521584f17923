"""What the door takes for a picture: FP32 [1,3,224,224], as JSON and as binary tensors, 4 in flight.

Claims, for the CPU time of the server without that of the engine: at most 6 ms as V2 JSON, at most 0.5 ms as V2 binary
tensors. The values are what a normalised picture has, with all digits that FP32 needs: 1.6 MB of text. The model
gives the first pixel back; onnxruntime alone on the same tensor is what is taken off. Without key and charge.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import uvloop
from common import BenchmarkFailed, leave_on_sigterm, tidemill
from made_models import PICTURE, corner, lay_out
from onnxruntime_alone import onnxruntime_side
from report import finish, flags_of
from rounds import Samples, first_answer_http, http_side, interleave, microseconds

from tidemill.client.bench.payload import payload
from tidemill.core.tensor import Signature, TensorSpec

LIMITS_US = {"v2-json": 6000, "v2": 500, "tfs": None}
NAMES = {"v2-json": "V2 JSON", "v2": "V2 binary", "tfs": "TF Serving JSON"}
ALONE = "onnxruntime alone"
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, *PICTURE)),), (TensorSpec("y", "FP32", (-1, PICTURE[0], 1, 1)),))
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_picture() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Bytes of a picture, normalised as most networks want them."""
    pixels = np.random.default_rng(2).integers(0, 256, (1, *PICTURE)).astype(np.float32) / np.float32(255)
    mean, deviation = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (MEAN, DEVIATION))
    return np.ascontiguousarray((pixels - mean) / deviation, np.float32)


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        file = lay_out(folder / "models", corner=corner())["corner"]
        picture = make_picture()
        np.save(folder / "picture.npy", picture)
        service = stack.enter_context(tidemill(folder / "models", ["corner"], "--no-auth", "--no-charge", key=False))
        sides = []
        for door, name in NAMES.items():
            asked = payload(door, "corner", "", SIGNATURE, {"x": picture})
            url = service.url + asked.path
            answer = await first_answer_http(url, asked.body, asked.headers)
            if door == "v2" and answer.body[-12:] != picture[0, :, 0, 0].tobytes():
                raise BenchmarkFailed(f"corner answered {answer.body[-12:]!r}")
            sides.append(http_side(name, service.server, url, asked.body, asked.headers, in_flight=flags.in_flight))
        sides.append(stack.enter_context(onnxruntime_side(ALONE, file, folder / "picture.npy", 1, 1, True)))
        return await interleave(sides, flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=4, requests=300)
    samples = uvloop.run(measure(flags))
    comparisons = [
        microseconds(samples, f"picture through {name}", name, ALONE, LIMITS_US[door]) for door, name in NAMES.items()
    ]
    return finish("picture", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
