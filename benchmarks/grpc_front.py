"""What a gRPC call costs on top of a bare grpc.aio echo of the same bytes: `half`, FP32 [1,16].

Claim: at most 1.8 times the CPU, for V2's ModelInfer and for TensorFlow Serving's Predict, with key and charge.
The echo runs on uvloop, the cheaper one; the plain loop is measured beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack

import numpy as np
from common import HOST, BenchmarkFailed, Tidemill, echo_grpc, free_port, kit_models, leave_on_sigterm, tidemill
from report import finish, flags_of
from rounds import Samples, compare, first_answer_grpc, grpc_side, interleave

from tidemill.core.schemas import message

INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
ROW = (0.25 * np.arange(16, dtype=np.float32) - 1.5).reshape(1, 16)
ECHO_INFER, ECHO_PREDICT, V2, TFS = "echo of ModelInfer", "echo of Predict", "V2 ModelInfer", "TF Serving Predict"
NATIVE = "V2 ModelInfer, native engine"
PLAIN = "echo of ModelInfer, asyncio's loop"
DT_FLOAT = 1


def infer_request() -> bytes:
    """As Triton's stock client makes it: raw contents."""
    request = message("inference.ModelInferRequest")(model_name="half")
    request.inputs.add(name="input", datatype="FP32", shape=[1, 16])
    request.raw_input_contents.append(ROW.tobytes())
    made: bytes = request.SerializeToString()
    return made


def predict_request() -> bytes:
    """As `tf.make_tensor_proto` makes it: `tensor_content`."""
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "half"
    tensor = request.inputs["input"]
    tensor.dtype = DT_FLOAT
    for size in ROW.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = ROW.tobytes()
    made: bytes = request.SerializeToString()
    return made


async def check(service: Tidemill) -> None:
    """The answers are right, so that no error is measured as a quick answer."""
    answer = await first_answer_grpc(service.grpc_address, INFER, infer_request(), service.headers)
    reply = message("inference.ModelInferResponse").FromString(answer.body)
    _is_half(np.frombuffer(reply.raw_output_contents[0], np.float32) if reply.raw_output_contents else np.array([]))
    answer = await first_answer_grpc(service.grpc_address, PREDICT, predict_request(), service.headers)
    tensor = message("tensorflow.serving.PredictResponse").FromString(answer.body).outputs["output"]
    _is_half(np.array(tensor.float_val or np.frombuffer(tensor.tensor_content, np.float32), np.float32))


def _is_half(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    if not np.array_equal(values, ROW.ravel() / 2):
        raise BenchmarkFailed(f"half answered {values.tolist()} for {ROW.tolist()}")


async def measure(flags: argparse.Namespace) -> Samples:
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, "half"))
        port, plain_port = free_port(), free_port()
        echo = stack.enter_context(echo_grpc(port))
        plain = stack.enter_context(echo_grpc(plain_port, "--asyncio"))
        opened = ("--no-auth", "--no-charge") if flags.open else ()
        service = stack.enter_context(tidemill(models, ["half"], *opened, key=not flags.open))
        native = stack.enter_context(tidemill(models, ["half"], "--grpc-engine", "native", *opened, key=not flags.open))
        await check(service)
        await check(native)
        headers, many = service.headers, flags.in_flight
        sides = []
        for bare, name, call in (
            (ECHO_INFER, V2, (INFER, infer_request())),
            (ECHO_PREDICT, TFS, (PREDICT, predict_request())),
        ):
            sides += [
                grpc_side(bare, echo, f"{HOST}:{port}", call, headers, in_flight=many),
                grpc_side(name, service.server, service.grpc_address, call, headers, in_flight=many),
            ]
        sides.append(
            grpc_side(
                NATIVE, native.server, native.grpc_address, (INFER, infer_request()), native.headers, in_flight=many
            )
        )
        slow = grpc_side(PLAIN, plain, f"{HOST}:{plain_port}", (INFER, infer_request()), headers, in_flight=many)
        return await interleave([*sides, slow], flags.rounds, flags.requests, flags.warm)


def main() -> int:
    leave_on_sigterm()
    flags = flags_of(__doc__, in_flight=32, requests=10_000)
    samples = asyncio.run(measure(flags))
    money = "without" if flags.open else "with"
    comparisons = [
        compare(samples, f"V2 ModelInfer {money} key and charge over a bare echo", V2, ECHO_INFER, 1.8),
        compare(samples, f"TF Serving Predict {money} key and charge over a bare echo", TFS, ECHO_PREDICT, 1.8),
        compare(samples, "V2 ModelInfer over an echo on asyncio's own loop", V2, PLAIN),
        compare(samples, f"V2 ModelInfer on the native engine, {money} key and charge", NATIVE, ECHO_INFER, 0.6),
    ]
    return finish("grpc_front_open" if flags.open else "grpc_front", flags, samples, comparisons)


if __name__ == "__main__":
    sys.exit(main())
