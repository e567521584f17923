"""How many activations of a row share a scale where OpenVINO multiplies by weights of int8, told in the model itself;
written by the crafts, read by the engine.

OpenVINO takes 32 by itself. Fewer scales leave the sums in integers for longer: quicker, and a little less true.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

METADATA: Final = "tidemill.activations"
"""The key in an ONNX file's metadata."""
PROPERTY: Final = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
"""OpenVINO's own name."""
SHARED: Final = (192, 128, 96, 64, 32)
"""What is tried, in this order."""


def sharing(widths: Collection[int]) -> int:
    """What divides the inputs of all products, as one that it does not divide is computed in floats; 0, floats
    throughout, where nothing does."""
    return next((each for each in SHARED if all(width % each == 0 for width in widths)), 0)


def told(value: str) -> str | None:
    """The property's value, of what a model's metadata says; None for nonsense."""
    return value if value.isascii() and value.isdigit() and len(value) <= 4 else None
