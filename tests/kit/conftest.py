from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tidemill.kit import install


@dataclass
class FileServer:
    """A small real HTTP server of one file, which misbehaves as told.

    `cuts` are bodies to break off after so many bytes, `statuses` answers to give instead, one a request, first in
    line first.
    """

    content: bytes
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        span = handler.headers.get("Range")
        self.asked.append(span)
        self.authorizations.append(handler.headers.get("Authorization"))
        if self.statuses:
            handler.send_response(self.statuses.pop(0))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", span or "")
        if match and self.ranges:
            start, end = int(match[1]), int(match[2] or len(body) - 1)
            handler.send_response(206 if start < len(body) else 416)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
            body = body[start : end + 1]
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server: FileServer, *arguments: object) -> None:
        self.file = server
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.file.answer(self)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def _serving(file: FileServer) -> Iterator[FileServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, file)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        file.url = f"http://127.0.0.1:{server.server_port}/file.whl"
        try:
            yield file
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with _serving(FileServer(content=bytes(range(256)) * 1024)) as serving:
        yield serving


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole kit, really fetched; its wheels stay in the user's cache for the next run."""
    into = tmp_path_factory.mktemp("models")
    install.install(None, into)
    return into
