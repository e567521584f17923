"""LitServe with one worker and batching, `{"x": [rows]}` to `{"y": [rows]}`; runs in its own environment.

It looks at the annotations of what it calls, and takes a request without one for JSON.
"""

from typing import Any

import litserve
import numpy as np

from peers.session import arguments, names, open_session

FLAGS = arguments()


class Api(litserve.LitAPI):  # type: ignore[misc]
    """What LitServe's guide calls for: decode, batch, predict, unbatch, encode."""

    def setup(self, device: str) -> None:
        self.session = open_session(FLAGS.model)
        self.names = names(self.session)
        kinds = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
        self.dtype = kinds[self.session.get_inputs()[0].type]

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return np.array(request["x"], self.dtype)

    def batch(self, inputs: list[Any]) -> Any:
        return np.concatenate(inputs)

    def predict(self, x: Any) -> Any:
        return self.session.run([self.names[1]], {self.names[0]: x})[0]

    def unbatch(self, output: Any) -> Any:
        return [output[row : row + 1] for row in range(len(output))]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"y": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=FLAGS.max_batch, batch_timeout=FLAGS.batch_ms / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=FLAGS.http_port, num_api_servers=1, log_level="warning", generate_client_file=False
    )
