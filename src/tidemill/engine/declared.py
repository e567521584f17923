"""The signature that a model without a file of its own declares in its `tidemill.toml`; on a thread that loads."""

from __future__ import annotations

from tidemill.core.errors import RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import DTYPES, Signature


def signature(package: ModelPackage) -> Signature:
    """`[[inputs]]` and `[[outputs]]`, at least one each. Raises `RefusedModel`."""
    found = Signature(package.config.inputs, package.config.outputs)
    if not found.inputs or not found.outputs:
        raise RefusedModel(f"{package.path}: at least one of [[inputs]] and of [[outputs]] must be declared")
    for specs in (found.inputs, found.outputs):
        if len({spec.name for spec in specs}) < len(specs):
            raise RefusedModel(f"{package.path}: two tensors have one name: {', '.join(map(str, specs))}")
        for spec in specs:
            if spec.datatype not in DTYPES:
                raise RefusedModel(f"{package.path}: {spec}: known datatypes are {', '.join(DTYPES)}")
            if any(side < -1 for side in spec.shape or ()):
                raise RefusedModel(f"{package.path}: {spec}: a side is -1 (any size) or at least 0")
    return found
