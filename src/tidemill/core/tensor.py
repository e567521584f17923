"""Named arrays and what a model expects of them; used in every process.

A tensor is a C-contiguous `numpy.ndarray` under a name. Strings are `bytes` in an array of dtype object. Datatypes
carry KServe V2's names (`FP32`, `INT64`, `BYTES`, ...) everywhere inside; doors and engines translate their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_dtypes
import msgspec
import numpy as np

from tidemill.core.errors import MissingInput, UnknownInput, UnknownOutput, UnknownSignature, WrongDatatype, WrongShape
from tidemill.core.text import short

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Tensors: TypeAlias = Mapping[str, Array]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one input or output looks like.

    `shape` holds -1 for a dimension that is free; it is None when even the rank is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {'any shape' if self.shape is None else list(self.shape)}"

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` fits."""
        mine = self.shape
        if mine is None or mine == shape:
            return True
        if len(mine) != len(shape):
            return False
        return all(want in (-1, got) for want, got in zip(mine, shape, strict=True))


class Signature(msgspec.Struct, frozen=True):
    """The inputs and outputs of a model, in the model's order.

    `name` and `method` are those of a SavedModel's `SignatureDef`; every other model has the usual ones. `others` are
    the names of those beside it in the file. Of a model that is served, `further` are those of them that are served
    too, and `left_out` tells of each other one why it is not; these have no others of their own.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str = "serving_default"
    method: str = "tensorflow/serving/predict"
    others: tuple[str, ...] = ()
    further: tuple[Signature, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def of(self, name: str) -> Signature:
        """The one that `Predict.signature` names: this one for "". Raises `UnknownSignature`."""
        if not name:
            return self
        for each in self.further:
            if each.name == name:
                return each
        raise UnknownSignature(f"there is no signature {short(name)} any more; the model was loaded anew")

    def input(self, name: str) -> TensorSpec:
        """Raises `UnknownInput`."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise UnknownInput(f"there is no input {short(name)}; this model takes {self._names(self.inputs)}")

    def check(self, tensors: Tensors) -> None:
        """Hold `tensors` against the inputs.

        Raises `MissingInput`, `UnknownInput`, `WrongDatatype` or `WrongShape`, each with the value and what was
        expected.
        """
        for spec in self.inputs:
            array = tensors.get(spec.name)
            if array is None:
                raise MissingInput(f"input {spec.name!r} is missing; this model takes {self._names(self.inputs)}")
            if array.dtype != spec.dtype:
                got = DATATYPES.get(array.dtype, str(array.dtype))
                raise WrongDatatype(f"input {spec.name!r} has datatype {got}, expected {spec.datatype}")
            if not spec.admits(array.shape):
                raise WrongShape(
                    f"input {spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape or ())}"
                    " (-1: any size)"
                )
        if len(tensors) != len(self.inputs):
            for name in tensors:
                self.input(name)

    def check_outputs(self, names: tuple[str, ...]) -> None:
        """Raises `UnknownOutput` for a name that this model does not give."""
        if names:
            known = {spec.name for spec in self.outputs}
            for name in names:
                if name not in known:
                    raise UnknownOutput(
                        f"there is no output {short(name)}; this model gives {self._names(self.outputs)}"
                    )

    @property
    def batched(self) -> bool:
        """Whether dimension 0 of every input and output is free: the usual mark of a batch dimension."""
        return bool(self.inputs) and all(
            spec.shape is not None and len(spec.shape) > 0 and spec.shape[0] == -1
            for spec in self.inputs + self.outputs
        )

    @staticmethod
    def _names(specs: tuple[TensorSpec, ...]) -> str:
        return ", ".join(str(spec) for spec in specs) or "none"


def rows(tensors: Tensors) -> int:
    """Size of dimension 0, shared by all `tensors`; 0 when they differ or one has no dimension."""
    found = -1
    for array in tensors.values():
        if array.ndim == 0:
            return 0
        if found < 0:
            found = array.shape[0]
        elif found != array.shape[0]:
            return 0
    return max(found, 0)
