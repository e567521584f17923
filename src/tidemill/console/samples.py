"""Something to ask a model when nothing is at hand; pure, runs in the console's process."""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from datetime import date, timedelta
from typing import Any

from tidemill.console.snapshot import Model
from tidemill.core.tensor import TensorSpec

TEXT = "The mill turns with the tide."
SOURCE = '''import math


def tide(hour: float) -> float:
    """Metres above the mean."""
    return 2.4 * math.cos(2 * math.pi * hour / 12.42)


if __name__ == "__main__":
    for hour in range(24):
        print(f"{hour:02d}:00 {tide(hour):+.2f} m")
'''
RATE_HZ = 22_050
WEEKS = 156
VALUES_WRITTEN_MAX = 4096
"""An example with more values is sent, but not written into the page."""
VALUES_MAX = 500_000
"""An example with more values is not made."""


def tone(frequency_hz: float = 440.0, seconds: float = 2.0) -> bytes:
    """A WAV file of 16 bits, one channel."""
    count = int(seconds * RATE_HZ)
    samples = [round(20_000 * math.sin(2 * math.pi * frequency_hz * place / RATE_HZ)) for place in range(count)]
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        writer.writeframes(struct.pack(f"<{count}h", *samples))
    return file.getvalue()


def weeks() -> str:
    """Three years of weeks of carbon dioxide as CSV: a rise and a season, as on Mauna Loa."""
    lines = ["date,co2"]
    for week in range(WEEKS):
        year = week / 52.18
        value = 369.5 + 1.9 * year + 3.0 * math.sin(2 * math.pi * (year - 0.12))
        lines.append(f"{date(2001, 1, 6) + timedelta(weeks=week)},{value:.2f}")
    return "\n".join(lines) + "\n"


def tensors(model: Model) -> tuple[str, int]:
    """JSON in `:predict`'s column form that fits the signature, all zeros, and how many values that are; "" for more
    than `VALUES_MAX`."""
    count = sum(math.prod(sides(spec)) for spec in model.inputs)
    if count > VALUES_MAX:
        return "", count
    return json.dumps({"inputs": {spec.name: _zeros(sides(spec), zero(spec)) for spec in model.inputs}}), count


def sides(spec: TensorSpec) -> list[int]:
    """A shape that fits; a free dimension is 1."""
    return [1] if spec.shape is None else [1 if size == -1 else size for size in spec.shape]


def _zeros(left: list[int], value: Any) -> Any:
    return value if not left else [_zeros(left[1:], value) for _ in range(left[0])]


def zero(spec: TensorSpec) -> Any:
    """Nothing, in JSON, of the spec's datatype."""
    if spec.datatype == "BYTES":
        return ""
    if spec.datatype == "BOOL":
        return False
    return 0.0 if spec.datatype.startswith(("FP", "BF")) else 0
