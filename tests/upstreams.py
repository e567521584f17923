"""A small true HTTP server that answers as it is told, or breaks as it is told: an upstream for tests of those before
it."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson


class Heard:
    """One request."""

    def __init__(self, line: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, _ = line.split(" ", 2)
        self.headers = headers
        self.body = body


class Upstream:
    """`says` is how it answers, after which the connection is closed: bytes, or parts of them. None: nothing more is
    said until the caller leaves. `heard` are the requests, but for looks (GET), which are answered with the status
    `health`; `left` is set when a caller hung up before the end. At other addresses than `knows` there is nothing."""

    def __init__(self) -> None:
        self.says: bytes | list[bytes | None] | None = ok({})
        self.heard: list[Heard] = []
        self.left = asyncio.Event()
        self.health = 200
        self.knows: set[str] = set()
        """Empty for all."""
        self.url = ""

    @property
    def asked(self) -> int:
        return len(self.heard)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head[1:] if line)}
            heard = Heard(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))
            if heard.method == "GET":
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % self.health)
                return
            self.heard.append(heard)
            if self.knows and heard.path not in self.knows:
                writer.write(reply(404, b'{"detail": "Not Found"}'))
                return
            for part in self.says if isinstance(self.says, list) else [self.says]:
                if part is None:
                    await reader.read()
                    self.left.set()
                    return
                writer.write(part)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def upstream(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    made = Upstream()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0, ssl=tls)
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


@contextmanager
def beside() -> Iterator[Upstream]:
    """One on a thread and a loop of its own, for tests that ask without a loop."""
    made: list[Upstream] = []
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with upstream() as each:
            made.append(each)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield made[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


def reply(status: int, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def ok(told: object) -> bytes:
    return reply(200, orjson.dumps(told))


STREAM = b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(**told: object) -> bytes:
    return b"data: " + orjson.dumps(told) + b"\n\n"


def word(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "text": text, "finish_reason": finish}])


def chunk(finish: str | None = None, **delta: object) -> bytes:
    """Of a chat."""
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


DONE = b"data: [DONE]\n\n"
USAGE = event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7})
SAID = [STREAM, word("mill"), word("s", "stop"), USAGE, DONE]
PRICE = "[price]\ncall_nanos = 1\nprompt_token_nanos = 150\ncompletion_token_nanos = 600\n"


def lay(folder: Path, name: str, *urls: str, price: str = "", **remote: Any) -> None:
    """A model `name` that `urls` answer for."""
    place = folder / name / "1"
    place.mkdir(parents=True)
    wished = "".join(f"{key} = {json.dumps(value)}\n" for key, value in remote.items())
    upstreams = "".join(f'[[remote.upstream]]\nurl = "{url}"\n' for url in urls)
    (place / "tidemill.toml").write_text(f'engine = "remote"\n[remote]\n{wished}{upstreams}{price}')
