"""TensorFlow's `DataType` numbers and our datatype names, both ways; used by doors and the repository."""

from __future__ import annotations

TF_DATATYPES: dict[int, str] = {
    1: "FP32",
    2: "FP64",
    3: "INT32",
    4: "UINT8",
    5: "INT16",
    6: "INT8",
    7: "BYTES",
    9: "INT64",
    10: "BOOL",
    14: "BF16",
    17: "UINT16",
    19: "FP16",
    22: "UINT32",
    23: "UINT64",
}
"""Number of a `DT_*` -> datatype; complex, quantised and reference types are not served."""

TF_NUMBERS: dict[str, int] = {name: number for number, name in TF_DATATYPES.items()}
