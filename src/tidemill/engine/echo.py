"""`Engine` that answers each input under the output of the same place; for tests, drills and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature, Tensors
from tidemill.engine import declared


def load(package: ModelPackage, threads: int) -> EchoEngine:
    """The signature is declared in `tidemill.toml` (`[[inputs]]`, `[[outputs]]`). Raises `RefusedModel`."""
    signature = declared.signature(package)
    if len(signature.inputs) != len(signature.outputs):
        raise RefusedModel(f"{package.path}: an echo model declares as many [[outputs]] as [[inputs]]")
    for given, answered in zip(signature.inputs, signature.outputs, strict=True):
        if given.datatype != answered.datatype:
            raise RefusedModel(f"{package.path}: {given} cannot be answered as {answered}")
    return EchoEngine(signature)


class EchoEngine:
    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        answered = {
            given_back.name: inputs[given.name]
            for given, given_back in zip(self.signature.inputs, self.signature.outputs, strict=True)
        }
        return {name: answered[name] for name in outputs} if outputs else answered

    def close(self) -> None:
        return
