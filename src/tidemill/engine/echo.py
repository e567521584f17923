"""`Engine` that answers each input under the output of the same place; for tests, drills and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import DTYPES, Signature, Tensors


def load(package: ModelPackage, threads: int) -> EchoEngine:
    """The signature is declared in `tidemill.toml` (`[[inputs]]`, `[[outputs]]`). Raises `RefusedModel`."""
    signature = Signature(package.config.inputs, package.config.outputs)
    if not signature.inputs or len(signature.inputs) != len(signature.outputs):
        raise RefusedModel(f"{package.path}: an echo model declares as many [[outputs]] as [[inputs]], at least one")
    for given, answered in zip(signature.inputs, signature.outputs, strict=True):
        if given.datatype not in DTYPES or given.datatype != answered.datatype:
            raise RefusedModel(f"{package.path}: {given} cannot be answered as {answered}")
    for specs in (signature.inputs, signature.outputs):
        if len({spec.name for spec in specs}) < len(specs):
            raise RefusedModel(f"{package.path}: two tensors have one name: {', '.join(map(str, specs))}")
        for spec in specs:
            if any(side < -1 for side in spec.shape or ()):
                raise RefusedModel(f"{package.path}: {spec}: a side is -1 (any size) or at least 0")
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
