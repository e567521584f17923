"""What every peer serves with: the same onnxruntime, opened as Tidemill opens it; runs in the peer's process."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import onnxruntime


def arguments() -> argparse.Namespace:
    """What `peers_serving.py` tells each of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--max-batch", type=int, required=True)
    parser.add_argument("--batch-ms", type=float, required=True, help="how long the first of a batch waits for others")
    return parser.parse_args()


def open_session(model: Path) -> Any:
    """All cores of the machine, and no thread that spins while it waits: that would be CPU time too."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options)


def names(session: Any) -> tuple[str, str]:
    """Of its only input and its only output."""
    return session.get_inputs()[0].name, session.get_outputs()[0].name


def datatype(session: Any) -> str:
    """Of its input, in V2's words."""
    known = {"tensor(float)": "FP32", "tensor(int32)": "INT32", "tensor(int64)": "INT64"}
    return known[session.get_inputs()[0].type]
