"""onnxruntime alone: runs a model on rows as told on stdin, and says what CPU time they took; a process of its own.

One line in, the number of rows; one line out, the CPU seconds of this process for them. `--threads 0` keeps
onnxruntime's default session options; `--no-spinning` sets what the service sets.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def session_of(model: Path, threads: int, spinning: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("row", type=Path, help="one row of the first input, as .npy")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--no-spinning", action="store_true")
    flags = parser.parse_args()
    session = session_of(flags.model, flags.threads, not flags.no_spinning)
    row = np.load(flags.row, allow_pickle=False)
    feed = {session.get_inputs()[0].name: np.repeat(row, flags.batch, axis=0)}
    session.run(None, feed)
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.process_time()
        for _ in range(int(line) // flags.batch):
            session.run(None, feed)
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main()
