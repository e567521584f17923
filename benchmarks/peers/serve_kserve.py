"""KServe's SDK server with one worker, its V2 doors; runs in its own environment.

It has no batching of its own: in a cluster an agent beside it does that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import kserve
from kserve.utils.utils import get_predict_response

from peers.session import arguments, datatype, names, open_session


class Peer(kserve.Model):  # type: ignore[misc]
    """A custom predictor, as its guide shows one."""

    def __init__(self, name: str, session: Any) -> None:
        super().__init__(name)
        self.session = session
        self.names = names(session)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        x = payload.inputs[0].as_numpy()
        if HEAVY:
            found = await asyncio.to_thread(self.session.run, [self.names[1]], {self.names[0]: x})
        else:
            found = self.session.run([self.names[1]], {self.names[0]: x})
        return get_predict_response(payload, found[0], self.name)


if __name__ == "__main__":
    FLAGS = arguments()
    SESSION = open_session(FLAGS.model)
    HEAVY = datatype(SESSION) != "FP32"  # magika: long enough that the loop had better go on meanwhile
    kserve.ModelServer(
        http_port=FLAGS.http_port, grpc_port=FLAGS.grpc_port, workers=1, enable_latency_logging=False
    ).start([Peer(FLAGS.name, SESSION)])
