"""`Engine` on OpenVINO's CPU plug-in: ONNX, IR and SavedModel; blocks the thread of its lane."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

# Else the import of OpenVINO forks a process that reports it to an analytics service, and leaves its marks in the
# user's home; where the reporter is not to be had, OpenVINO does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov

from tidemill.core.errors import EngineFailed, RefusedByEngine, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature, Tensors, TensorSpec
from tidemill.repository import saved_model

# Without string: OpenVINO 2026.4 aborts the process when strings go in and out ("munmap_chunk(): invalid pointer").
OV_TYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
}

INT32 = np.iinfo(np.int32)
PASSED_OVER = ("Assert", "Assign", "Print", "ResourceScatter", "Mutable", "Lookup", "PyFunc", "EagerPyFunc")
"""Beginnings of the names of operations that change, check or tell something beside what is computed."""


def load(package: ModelPackage, threads: int) -> OpenVinoEngine:
    """Raises `RefusedModel`, also when what was read is not what the package's own signature declares."""
    declared = package.signature
    if declared is None or declared.name == saved_model.DEFAULT_SIGNATURE:
        return _loaded(package, package.path, threads)
    # OpenVINO knows no signature but `serving_default`, and answers that one whatever was meant.
    with saved_model.as_default(package.path, declared.name) as path:
        return _loaded(package, path, threads)


def _loaded(package: ModelPackage, path: Path, threads: int) -> OpenVinoEngine:
    """`path` is where OpenVINO reads `package`."""
    core = ov.Core()
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        reason = _reason(error).replace(str(path), str(package.path))
        raise RefusedModel(f"OpenVINO cannot read {package.path}: {reason}{_elsewhere(package)}") from error
    names = _declared_names(package)
    signature = Signature(
        tuple(_spec(port, names) for port in model.inputs), tuple(_spec(port, names) for port in model.outputs)
    )
    if package.signature is not None:
        signature = _held_against(package.signature, signature, package)
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    precision = package.config.openvino_precision or "f32"
    if precision != "auto":
        properties["INFERENCE_PRECISION_HINT"] = precision
    try:
        compiled = core.compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise RefusedModel(f"OpenVINO cannot compile {package.path}: {_reason(error)}{_elsewhere(package)}") from error
    return OpenVinoEngine(compiled, signature, partial(_signed, package, threads))


def _signed(package: ModelPackage, threads: int, name: str) -> OpenVinoEngine:
    """Loaded on its own: compiled models share nothing."""
    config = msgspec.structs.replace(package.config, signature=name)
    declared = saved_model.signature(package.path, name)
    return load(msgspec.structs.replace(package, config=config, signature=declared), threads)


class OpenVinoEngine:
    def __init__(
        self, compiled: ov.CompiledModel, signature: Signature, signed: Callable[[str], OpenVinoEngine]
    ) -> None:
        self.signature = signature
        self.signed = signed
        """As `Signs.signed`."""
        self._request = compiled.create_infer_request()
        names = frozenset(spec.name for spec in signature.outputs)
        self._outputs = {_name(port, names): port for port in compiled.outputs}
        self._order = [spec.name for spec in signature.outputs]
        self._wide = [spec.name for spec in signature.inputs if spec.datatype in ("INT64", "UINT64")]

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        given = dict(inputs)
        for name in self._wide:
            _check_width(name, given[name])
        try:
            # Not `infer`: with one thread it swallows what the model raises, and the answer of the call before comes
            # out.
            self._request.start_async(given, share_inputs=True)
            self._request.wait()
            # Copied: the request's own buffers are written again by the next call.
            return {name: self._copied(name) for name in outputs or self._order}
        except RuntimeError as error:
            kind = RefusedByEngine if "shape" in str(error).lower() else EngineFailed
            raise kind(f"OpenVINO failed: {_reason(error)}") from error

    def _copied(self, name: str) -> np.ndarray[Any, Any]:
        return np.array(self._request.get_tensor(self._outputs[name]).data, copy=True)

    def close(self) -> None:
        del self._request, self._outputs


def _check_width(name: str, array: np.ndarray[Any, Any]) -> None:
    """OpenVINO's CPU plug-in computes whole numbers in 32 bits, and says nothing when one does not fit."""
    if array.size and (array.max() > INT32.max or array.min() < INT32.min):
        raise RefusedByEngine(
            f"input {name!r} holds values from {array.min()} to {array.max()}; OpenVINO computes in 32 bits, so they"
            f" must lie between {INT32.min} and {INT32.max} (the engine `onnx` has no such bound)"
        )


def _held_against(declared: Signature, read: Signature, package: ModelPackage) -> Signature:
    """The declared signature, when what OpenVINO read is that; it has answered a model without inputs before."""
    for what, wanted, got in (
        ("inputs", declared.inputs, read.inputs),
        ("outputs", declared.outputs, read.outputs),
    ):
        by_name = {spec.name: spec for spec in got}
        same = len(wanted) == len(got) and all(
            spec.name in by_name
            and by_name[spec.name].datatype == spec.datatype
            and _compatible(spec.shape, by_name[spec.name].shape)
            for spec in wanted
        )
        if not same:
            raise RefusedModel(
                f"OpenVINO read {package.path} with {what} ({', '.join(map(str, got)) or 'none'}), its signature"
                f" declares ({', '.join(map(str, wanted)) or 'none'}){_left_out(package)}{_elsewhere(package)}"
            )
    return declared


def _compatible(declared: tuple[int, ...] | None, read: tuple[int, ...] | None) -> bool:
    if declared is None or read is None:
        return True
    return len(declared) == len(read) and all(-1 in (a, b) or a == b for a, b in zip(declared, read, strict=True))


def _declared_names(package: ModelPackage) -> frozenset[str]:
    declared = package.signature
    return frozenset(spec.name for spec in declared.inputs + declared.outputs) if declared else frozenset()


def _name(port: Any, preferred: frozenset[str]) -> str:
    """The name of `port`; of several the one that is `preferred`, else the shortest."""
    names: list[str] = sorted(port.get_names(), key=lambda name: (name not in preferred, len(name), name))
    return names[0] if names else str(port.get_node().get_friendly_name())


def _spec(port: Any, preferred: frozenset[str]) -> TensorSpec:
    name, kind = _name(port, preferred), port.get_element_type()
    datatype = OV_TYPES.get(kind.get_type_name())
    if datatype is None:
        raise RefusedModel(f"{name!r} is of OpenVINO's type {kind.get_type_name()}, which this engine does not serve")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorSpec(name, datatype, None)
    return TensorSpec(name, datatype, tuple(side.get_length() if side.is_static else -1 for side in shape))


def _elsewhere(package: ModelPackage) -> str:
    """What else can serve it."""
    if package.format != "savedmodel":
        return ""
    return (
        '; TensorFlow itself reads every SavedModel: say `engine = "tensorflow"` in this model\'s tidemill.toml'
        " (pip install 'tidemill[tensorflow]')"
    )


def _left_out(package: ModelPackage) -> str:
    """The operations because of which OpenVINO read something else: it passes over them without a word."""
    if package.format != "savedmodel":
        return ""
    try:
        found = saved_model.operations(package.path, package.config.signature)
    except RefusedModel:  # what the signature said is told already
        return ""
    named = sorted(each for each in found if each.startswith(PASSED_OVER))
    return f"; OpenVINO passes over the operations {', '.join(named)} of its graph" if named else ""


def _reason(error: BaseException, characters: int = 400) -> str:
    """OpenVINO's message without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(telling or lines)[:characters]
