"""MLServer without worker processes and with adaptive batching, its own V2 doors; runs in its own environment."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from peers.session import arguments, names, open_session


class Runtime(MLModel):  # type: ignore[misc]
    """A custom runtime, as its guide shows one: MLServer has none for ONNX."""

    async def load(self) -> bool:
        self.session = open_session(self.settings.parameters.uri)
        self.names = names(self.session)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        found: Any = self.session.run([self.names[1]], {self.names[0]: x})[0]
        outputs = [NumpyCodec.encode_output(self.names[1], found)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    flags = arguments()
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=flags.http_port, grpc_port=flags.grpc_port, parallel_workers=0,
        metrics_endpoint=None, load_models_at_startup=False, use_structured_logging=False,
    )  # fmt: skip
    server = MLServer(settings)
    model = ModelSettings(
        name=flags.name, implementation=Runtime, parameters={"uri": str(flags.model)}, max_batch_size=flags.max_batch,
        max_batch_time=flags.batch_ms / 1000,
    )  # fmt: skip
    await server.start([model])


if __name__ == "__main__":
    os.environ.setdefault("OTEL_SDK_DISABLED", "true")
    import uvloop

    uvloop.install()
    asyncio.run(main())
