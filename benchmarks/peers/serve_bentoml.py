"""BentoML with one worker and adaptive batching, `{"x": [rows]}` to rows; runs in its own environment.

BentoML starts its workers itself and imports this file in each, so what they need comes through the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from peers.session import arguments

    flags = arguments()
    told = {"MODEL": flags.model, "MAX_BATCH": flags.max_batch}
    os.environ.update({f"PEER_{name}": str(value) for name, value in told.items()})
    os.environ |= {"BENTOML_DO_NOT_TRACK": "True"}
    os.chdir(Path(__file__).parent)
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "serve_bentoml:Peer"]
    os.execv(command[0], [*command, "--host", "127.0.0.1", "--port", str(flags.http_port)])  # noqa: S606

import bentoml
import numpy as np

from peers.session import names, open_session

MAX_BATCH = int(os.environ["PEER_MAX_BATCH"])
LATENCY_MS = 1000
"""What it thinks will take longer is refused, so this is wide; how long it waits for a batch, it learns by itself."""


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024}, metrics={"enabled": False})
class Peer:
    """One model, one endpoint."""

    def __init__(self) -> None:
        self.session = open_session(Path(os.environ["PEER_MODEL"]))
        self.names = names(self.session)
        kinds = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
        self.dtype = kinds[self.session.get_inputs()[0].type]

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=MAX_BATCH, max_latency_ms=LATENCY_MS)  # type: ignore[untyped-decorator]
    def predict(self, x: np.ndarray) -> np.ndarray:
        found: Any = self.session.run([self.names[1]], {self.names[0]: np.asarray(x, self.dtype)})[0]
        return np.asarray(found)
