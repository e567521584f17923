"""Asking the gRPC door over a real connection, with a true service of fakes behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from fakes import ADMIN_KEY, KEY, FakeService
from tidemill.core import schemas
from tidemill.core.settings import Settings
from tidemill.doors import grpc_server

ModelInferRequest = schemas.message("inference.ModelInferRequest")

KSERVE = "/inference.GRPCInferenceService/"
TENSORFLOW = "/tensorflow.serving.PredictionService/"
BEARER = (("authorization", f"Bearer {KEY}"),)
ADMIN = (("authorization", f"Bearer {ADMIN_KEY}"),)
LIMIT_S = 20


@asynccontextmanager
async def serving(service: FakeService, **settings: Any) -> AsyncIterator[grpc.aio.Channel]:
    server, port = await grpc_server.start(service, "127.0.0.1", 0, Settings(**settings))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


def asked(x: Any = ((1, 2),), model: str = "half", **more: Any) -> bytes:
    array = np.array(x, np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": array.shape}
    message = ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[array.tobytes()], **more)
    return bytes(message.SerializeToString())


async def call(channel: grpc.aio.Channel, method: str, body: bytes, metadata: Any = BEARER, **options: Any) -> bytes:
    options.setdefault("timeout", LIMIT_S)
    return await channel.unary_unary(method)(body, metadata=metadata, **options)


async def held(service: FakeService, count: int) -> None:
    """Until just so many requests hold a place."""
    async with asyncio.timeout(LIMIT_S):
        while service.gate.held != count:  # noqa: ASYNC110 - the gate tells nobody
            await asyncio.sleep(0)


async def refused(channel: grpc.aio.Channel, method: str, body: bytes, **more: Any) -> tuple[Any, dict[str, str], str]:
    """Status, trailing metadata and details of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, body, **more)
    error = caught.value
    return error.code(), dict(error.trailing_metadata() or ()), error.details() or ""
