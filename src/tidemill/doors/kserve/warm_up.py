"""The requests that a model's configuration has it answer before it serves: `[[warm_up]]`, Triton's `model_warmup`.

Read by the owner, on a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from tidemill.core.contracts import WarmUpRequest
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage, WarmUp, WarmUpInput
from tidemill.core.request import Predict
from tidemill.core.tensor import DTYPES, Array, Signature, TensorSpec
from tidemill.core.text import short
from tidemill.doors.json_values import RANK_MAX
from tidemill.doors.kserve.translate import from_bytes
from tidemill.repository import layout

FOLDER = "warmup"
SEED = 7


def requests(package: ModelPackage, signature: Signature, bytes_max: int) -> Iterator[WarmUpRequest]:
    """Those of the model's configuration. Raises `RefusedModel` for one that cannot be made, or would have more than
    `bytes_max`.

    A model that refuses one serves all the same, as under Triton: values may be made up, and no input for it.
    """
    wish = package.config.batching.batched
    batched = signature.batched if wish is None else wish
    for number, sample in enumerate(package.config.warm_up, 1):
        where = f"warm-up request {short(sample.name) if sample.name else number}"
        try:
            if sample.rows > 1 and not batched:
                raise RefusedModel(f"it has {sample.rows} rows, and the model no batch dimension; leave them at 1")
            yield WarmUpRequest(where, _work(package, signature, sample, batched, bytes_max), sample.count, must=False)
        except TidemillError as error:
            raise RefusedModel(f"{where}: {error.message}") from error


def _work(package: ModelPackage, signature: Signature, sample: WarmUp, batched: bool, bytes_max: int) -> Predict:
    inputs: dict[str, Array] = {}
    left = bytes_max
    for name, told in sample.inputs.items():
        row = _row(package, name, told, left // sample.rows)
        whole = np.ascontiguousarray(np.broadcast_to(row, (sample.rows, *row.shape))) if batched else row
        inputs[name] = whole
        left -= whole.nbytes
    signature.check(inputs)
    return Predict(inputs)


def _row(package: ModelPackage, name: str, told: WarmUpInput, bytes_max: int) -> Array:
    if told.datatype not in DTYPES:
        raise RefusedModel(f"input {short(name)} has datatype {short(told.datatype)}; {', '.join(DTYPES)} are served")
    if len(told.shape) > RANK_MAX:
        raise RefusedModel(f"input {short(name)} has {len(told.shape)} dimensions, at most {RANK_MAX} are served")
    spec = TensorSpec(name, told.datatype, told.shape)
    count = prod(told.shape)
    if prod(max(side, 1) for side in told.shape) * spec.dtype.itemsize > bytes_max:  # numpy too counts past a side of 0
        raise RefusedModel(f"input {short(name)} and those before it have more bytes than a request (--body-bytes-max)")
    if told.file:
        return from_bytes(spec, count, _bytes(package, told.file, bytes_max)).reshape(told.shape)
    if spec.datatype == "BYTES":
        return np.full(told.shape, b"", object)
    if told.data == "zeros":
        return np.zeros(told.shape, spec.dtype)
    random = np.random.default_rng(SEED)
    if spec.dtype.kind in "iub":  # small whole numbers: they may be places in a table
        return random.integers(0, 2, told.shape).astype(spec.dtype)
    return random.standard_normal(told.shape).astype(spec.dtype)


def _bytes(package: ModelPackage, file: str, bytes_max: int) -> bytes:
    """The file, which lies in the model's folder `warmup`, links followed."""
    model = layout.folder_of(package)
    if model is None:
        raise RefusedModel(f"file {short(file)} lies in the model's folder {FOLDER!r}, and a bare file has no folder")
    folder = (model / FOLDER).resolve()
    try:
        path = (folder / file).resolve(strict=True)
        if not path.is_relative_to(folder) or not path.is_file():
            raise RefusedModel(f"file {short(file)} is no file in {folder}; what lies elsewhere is not read")
        if path.stat().st_size > bytes_max:
            raise RefusedModel(f"{path} has {path.stat().st_size} bytes, more than a request (--body-bytes-max)")
        return Path(path).read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # not there; a NUL in its name; links in a ring
        raise RefusedModel(f"file {short(file)} of {folder} cannot be read: {error}") from error
