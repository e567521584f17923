"""`Engine` on onnxruntime; blocks the thread of its lane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tidemill.core.errors import EngineFailed, RefusedByEngine, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature, Tensors, TensorSpec
from tidemill.engine.memory import give_back

# Without bfloat16: onnxruntime's Python can neither take nor give arrays of it. Within a model it is welcome.
ORT_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
ORT_FATAL_ONLY = 4
"""What fails is raised to us, and told in our words; onnxruntime need not print it as well."""


def load(package: ModelPackage, threads: int) -> OnnxEngine:
    """Raises `RefusedModel`."""
    options = ort.SessionOptions()
    options.log_severity_level = ORT_FATAL_ONLY
    options.intra_op_num_threads = threads
    # Spinning threads answer a little sooner and burn the cores that the service needs to read requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = providers(package.config.providers or ())
    try:
        session = ort.InferenceSession(str(package.path), options, providers=wanted)
    except ORT_FAILURES as error:
        raise RefusedModel(f"onnxruntime cannot load {package.path}: {first_line(error)}") from error
    check_started(wanted, session.get_providers())
    give_back()
    return OnnxEngine(session, _without_rank(package.path, session))


def providers(wanted: Sequence[str]) -> list[str]:
    """onnxruntime's names for `wanted` (`cuda`, `tensorrt`, …, or a whole name), `cpu` behind them.

    Raises `RefusedModel` for one that this onnxruntime lacks, where it would warn and take the CPU.
    """
    available = {_short(name): name for name in ort.get_available_providers()}
    missing = [name for name in wanted if _short(name) not in available]
    if missing:
        raise RefusedModel(
            f"onnxruntime has no provider {missing[0]!r} here, it has {', '.join(sorted(available))}; for `cuda` and"
            " `tensorrt` install onnxruntime-gpu in its place"
        )
    return list(dict.fromkeys([*(available[_short(name)] for name in wanted), available[CPU]]))


def check_started(wanted: Sequence[str], started: Sequence[str]) -> None:
    """Raises `RefusedModel` where one of `wanted` is not among those that a session `started` with: where a library or
    a device is missing, onnxruntime goes on without it in silence."""
    missing = [name for name in wanted if name not in started]
    if missing:
        short = _short(missing[0])
        raise RefusedModel(
            f"onnxruntime's provider {short!r} did not start: its libraries (for `cuda` CUDA and cuDNN, for `tensorrt`"
            f" TensorRT besides) or its device are missing; install them, or leave {short!r} out of `providers`"
        )


CPU = "cpu"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()


def _without_rank(path: Path, session: ort.InferenceSession) -> frozenset[str]:
    """Inputs and outputs that declare no shape at all: onnxruntime shows them as scalars, so the file is asked."""
    if all(node.shape for node in (*session.get_inputs(), *session.get_outputs())):
        return frozenset()
    graph = onnx.load(path, format="protobuf", load_external_data=False).graph
    return frozenset(each.name for each in (*graph.input, *graph.output) if not each.type.tensor_type.HasField("shape"))


class OnnxEngine:
    def __init__(self, session: ort.InferenceSession, without_rank: frozenset[str]) -> None:
        self._session = session
        self._without_rank = without_rank
        self.signature = Signature(
            tuple(_spec(each, without_rank) for each in session.get_inputs()),
            tuple(_spec(each, without_rank) for each in session.get_outputs()),
        )
        self._all_outputs = [spec.name for spec in self.signature.outputs]
        self._strings_in = tuple(spec.name for spec in self.signature.inputs if spec.datatype == "BYTES")
        self._strings_out = any(spec.datatype == "BYTES" for spec in self.signature.outputs)
        # The C object underneath: `InferenceSession.run` repeats in Python the checks that the door has made.
        self._run = session._sess.run

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        names = outputs or self._all_outputs
        if self._strings_in:
            inputs = {name: _decoded(name, a) if name in self._strings_in else a for name, a in inputs.items()}
        try:
            arrays = self._run(names, inputs, None)
        except REFUSALS as error:
            raise RefusedByEngine(f"the model refused these inputs: {first_line(error)}") from error
        except ORT_FAILURES as error:
            raise EngineFailed(f"onnxruntime failed: {first_line(error)}") from error
        if self._strings_out:
            arrays = [_encoded(array) if array.dtype == object else array for array in arrays]
        return dict(zip(names, arrays, strict=True))

    def fork(self) -> OnnxEngine:
        """On the same session, whose `run` may be called from any number of threads; each computes with the session's
        own threads."""
        return OnnxEngine(self._session, self._without_rank)

    def close(self) -> None:
        del self._run, self._session


def _failures() -> tuple[type[Exception], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError)


ORT_FAILURES = _failures()
REFUSALS: tuple[type[Exception], ...] = (
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.Fail,
    # A value that a kernel cannot take (an index out of range, shapes that do not meet) ends as a runtime exception.
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)


def first_line(error: BaseException, characters: int = 400) -> str:
    """An engine's message without its stack, at most `characters` long."""
    return str(error).strip().split("\n")[0][:characters]


def _spec(node: Any, without_rank: frozenset[str]) -> TensorSpec:
    datatype = ORT_TYPES.get(node.type)
    if datatype is None:
        raise RefusedModel(
            f"{node.name!r} is a {node.type}, which is not served; tensors of {', '.join(ORT_TYPES.values())} are"
        )
    shape = tuple(side if isinstance(side, int) and side >= 0 else -1 for side in node.shape)
    return TensorSpec(node.name, datatype, None if node.name in without_rank else shape)


def _decoded(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    try:
        flat = [value.decode() if isinstance(value, bytes) else value for value in array.ravel()]
    except UnicodeDecodeError as error:
        raise RefusedByEngine(f"input {name!r} is text, expected UTF-8: {error}") from error
    return np.array(flat, dtype=object).reshape(array.shape)


def _encoded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = [value.encode() if isinstance(value, str) else value for value in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)
