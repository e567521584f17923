"""A service whose models speak and embed, small and true, behind the real HTTP server; on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import uvloop

from fake_generator import FakeGenerator
from fakes import HALVE, KEY, FakeServed, FakeService, halve
from links import linked
from tidemill.core.contracts import Pieces
from tidemill.core.errors import NotOffered
from tidemill.core.generation import Embed, Generate
from tidemill.core.request import InferenceRequest, Piece, Usage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature
from tidemill.doors import application
from tidemill.doors.forward import Forward
from tidemill.doors.hot import Doors
from tidemill.doors.listen import HttpServer
from tidemill.doors.openai import rest as openai
from tidemill.doors.openai.batch.desk import Desk

DIMENSIONS = 8
NOTHING = Signature((), ())


def speaking(name: str = "mill", version: int = 1, says: Callable[[Generate], str] | None = None) -> FakeServed:
    """A model that speaks; `served.generator` is it."""
    served = FakeServed(name, version, NOTHING, halve)
    generator = FakeGenerator(says)
    served.speaks, served.run = generator.speaks, generator.run
    served.generator = generator  # type: ignore[attr-defined]
    return served


def embedding(name: str = "vectors") -> FakeServed:
    """A model that embeds: numbers drawn from the text, of length 1."""
    served = FakeServed(name, 1, NOTHING, halve)
    served.embeds, served.run = True, _embed
    return served


def vector(text: str | tuple[int, ...], dimensions: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(zlib.crc32(repr(text).encode())).normal(size=DIMENSIONS)[: dimensions or DIMENSIONS]
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


@asynccontextmanager
async def _embed(request: InferenceRequest) -> AsyncIterator[Pieces]:
    yield _vectors(request.work)


async def _vectors(work: Any) -> Pieces:
    if not isinstance(work, Embed):
        raise NotOffered("this model embeds")
    given = work.texts or work.tokens
    made = np.stack([vector(each, work.dimensions) for each in given])
    yield Piece({"embedding": made}, Usage(rows=len(given), prompt_tokens=sum(map(len, given))))


class SpeakingServer:
    """Life: a context manager. `service` may be looked at; what belongs to its loop is asked with `ask`."""

    def __init__(self, *models: FakeServed, fronted: bool = False, batches: bool = False, **settings: Any) -> None:
        """`fronted`: requests come to a front, which passes them on over a true link. `batches`: it runs those, and
        wants a `data_dir`."""
        self._batches = batches
        self._fronted = fronted
        self._models = models or (speaking(), embedding(), FakeServed("half", 1, HALVE, halve))
        self._settings = Settings(**settings)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def generator(self) -> FakeGenerator:
        """That of the first model."""
        found: FakeGenerator = self._models[0].generator  # type: ignore[attr-defined]
        return found

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.service = FakeService(*self._models)
        async with AsyncExitStack() as stack:
            self.desk = await stack.enter_async_context(self._desk()) if self._batches else None
            app = application.build(self.service, None, bytes, list, lambda: 0, self._settings, self.desk)  # type: ignore[arg-type]
            if self._fronted:
                ends = await stack.enter_async_context(linked(self.service, (), app=app))
                onward = Forward(ends.front, self.service.identity, self._settings.body_bytes_max, lambda: None)
                app = Doors(self.service, onward, self._settings)
            await self._listen(app)

    @asynccontextmanager
    async def _desk(self) -> AsyncIterator[Desk]:
        kinds = openai.kinds(self.service)
        desk = Desk(
            self.service,
            self._settings,
            {path: kinds[path] for path in openai.BATCHED},
            lambda _: self.service.gate.held,
        )
        await desk.open()
        running = asyncio.create_task(desk.run())
        try:
            yield desk
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await desk.close()

    async def _listen(self, app: Doors) -> None:
        self._http = HttpServer(app, self._settings, self.service.failures)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        sweeping = asyncio.create_task(self._http.sweep())
        self._ready.set()
        await serving
        sweeping.cancel()

    def ask(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def call(self, function: Callable[[], Any]) -> None:
        """On its loop, soon."""
        self.loop.call_soon_threadsafe(function)

    def post(self, path: str, body: Any, key: str = KEY, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else None
        headers = {"authorization": f"Bearer {key}", **headers} if key else headers
        return self.client.post(path, json=None if content is not None else body, content=content, headers=headers)

    def stop(self) -> None:
        self._http.should_exit = True
        self._thread.join(20)

    def __enter__(self) -> SpeakingServer:
        self._thread.start()
        self._ready.wait(20)
        self.client = httpx.Client(base_url=self.url, timeout=20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
