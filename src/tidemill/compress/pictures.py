"""Pictures as the model takes them, read with pillow; runs in the command line's process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tidemill.compress.data import Limits
from tidemill.core.errors import BadData, MissingPart
from tidemill.core.tensor import Array, TensorSpec

if TYPE_CHECKING:
    from tidemill.compress.sources import Reading

SUFFIXES: Final = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def check(reading: Reading) -> TensorSpec:
    """What one picture looks like. Raises `BadData` for a model that takes none."""
    inputs = reading.signature.inputs
    spec = reading.row_spec(inputs[0])
    if len(inputs) != 1 or spec.shape is None or len(spec.shape) != 3 or _channels_axis(spec.shape) is None:
        raise BadData(
            "pictures fit a model of one input [rows, channels, height, width] or [rows, height, width, channels] with"
            f" 1, 3 or 4 channels; this one takes {', '.join(map(str, inputs))}"
        )
    return spec


def read(path: Path, spec: TensorSpec, limits: Limits) -> Array:
    """[channels, height, width] or [height, width, channels], resized where the model fixes the size. Raises `BadData`,
    `MissingPart`."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPart("reading pictures needs pillow: pip install 'tidemill[compress]'") from error

    shape = spec.shape or ()
    axis = _channels_axis(shape) or 0
    height, width = [size for place, size in enumerate(shape) if place != axis]
    try:
        with Image.open(path) as image:
            picture = image.convert(_MODES[shape[axis]])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadData(f"{path} is no picture that can be read: {error}") from error
    size = (width if width > 0 else picture.width, height if height > 0 else picture.height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(picture).reshape(size[1], size[0], shape[axis])
    if spec.dtype.kind == "f":
        scaled = values.astype(np.float32) / np.float32(255)
        values = (scaled - np.array(limits.mean, np.float32)) / np.array(limits.deviation, np.float32)
    values = values.astype(spec.dtype)
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if axis == 0 else values


def _channels_axis(shape: tuple[int, ...]) -> int | None:
    return next((axis for axis in (0, 2) if shape[axis] in _MODES), None)
