"""The real server as a real process, for tests that ask it from outside."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil
import pytest

from small_models import lay_out
from tidemill.client.http1 import AnswerReader, header

START_S_MAX = 60.0
WAIT_S_MAX = 10.0
FRONTS = ("--fronts", os.environ["TEST_FRONTS"]) if "TEST_FRONTS" in os.environ else ()
"""`TEST_FRONTS=2 pytest tests/service` asks every server of the tests over so many fronts."""
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")


def environment(**extra: str) -> dict[str, str]:
    """This process's, without what would change a setting."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("TIDEMILL_") or key == "TIDEMILL_CACHE_DIR"
    }
    return clean | extra


def tidemill(
    *arguments: str | Path, cwd: Path | None = None, timeout_s: float = START_S_MAX, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tidemill", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=cwd,
        env=environment(**extra),
    )


class Server:
    """A running `tidemill serve`. Life: `start`, ask, `stop` or `kill`; its stderr is in the file `log`."""

    def __init__(self, models: Path, data_dir: Path, *flags: str | Path, cwd: Path | None = None, **extra: str) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log = data_dir / f"stderr-{time.monotonic_ns()}"
        self.command = [
            sys.executable,
            "-m",
            "tidemill",
            "serve",
            "--models",
            str(models),
            "--data-dir",
            str(data_dir),
            "--http-port",
            "0",
            "--grpc-port",
            "0",
            "--no-console",
            "--json",
            *FRONTS,
            *map(str, flags),
        ]
        self._cwd = cwd
        self._environment = environment(**extra)
        self.url = ""
        self.said = b""
        self.told: dict[str, Any] = {}

    def spawn(self) -> None:
        """Begin, without waiting for it to be ready."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._cwd,
                env=self._environment,
            )

    def start(self) -> Server:
        self.spawn()
        assert self.process.stdout is not None
        until = time.monotonic() + START_S_MAX
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not self.said.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"not ready after {START_S_MAX} s: {self.stderr()}")
                part = os.read(self.process.stdout.fileno(), 65536)
                if not part:
                    raise RuntimeError(f"ended with {self.process.wait()}: {self.stderr()}")
                self.said += part
        self.told = json.loads(self.said)
        self.url = self.told["http_url"]
        self.client = httpx.Client(base_url=self.url, timeout=30)
        return self

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def stderr(self) -> str:
        return self.log.read_text()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """The exit code; kills what does not end in time."""
        if hasattr(self, "client"):
            self.client.close()
        try:
            return self.process.wait(START_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self._put_down()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_down()

    def _put_down(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        self.ended()

    # -- asking --------------------------------------------------------------------------------------------------------

    def predict(self, model: str, body: Any, **headers: str) -> httpx.Response:
        """TensorFlow Serving's predict; `body` is JSON to be, or bytes."""
        return self.client.post(f"/v1/models/{model}:predict", headers=headers, **_content(body))

    def infer(self, model: str, body: Any, **headers: str) -> httpx.Response:
        """KServe V2's infer."""
        return self.client.post(f"/v2/models/{model}/infer", headers=headers, **_content(body))

    def metrics(self) -> dict[str, float]:
        """Samples as they are written: `name{label="value",...}`."""
        samples = {}
        for line in self.client.get("/metrics").text.splitlines():
            if found := _SAMPLE.fullmatch(line):
                samples[line.rpartition(" ")[0]] = float(found["value"])
        return samples

    @property
    def in_flight(self) -> float:
        return self.metrics()["tidemill_in_flight"]

    def connect(self) -> Wire:
        return Wire(self.address)


def _content(body: Any) -> dict[str, Any]:
    return {"content": body} if isinstance(body, bytes) else {"json": body}


class Wire:
    """One connection, byte by byte."""

    def __init__(self, address: tuple[str, int], timeout_s: float = WAIT_S_MAX) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self._left = b""

    def send(self, data: bytes) -> None:
        """A peer that hung up meanwhile has said why, which is for `answer` to read; one that does not read is left."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.answer()

    def answer(self) -> Reply:
        """The next answer. Raises `ConnectionError` when the server hangs up before one is whole."""
        reader = AnswerReader()
        data, self._left = self._left, b""
        while True:
            one, data, self._left = *self._first(data), b""
            if one is not None:
                reader.feed(one)
                self._left = data
                return Reply(reader.status, reader.head, reader.body)
            part = self.socket.recv(65536)
            if not part:
                raise ConnectionResetError(f"the server hung up after {data[:200]!r}")
            data += part

    def _first(self, data: bytes) -> tuple[bytes | None, bytes]:
        """A whole answer at the beginning of `data`, and the rest."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None, data
        length = int(header(data[:end], "content-length") or 0)
        whole = end + 4 + length
        return (data[:whole], data[whole:]) if len(data) >= whole else (None, data)

    @property
    def closed(self) -> bool:
        """Whether the server hangs up (within the time-out) without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def reset(self) -> None:
        """Vanish: RST, not FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


class Reply:
    """An answer off the wire."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    def header(self, name: str) -> str | None:
        return header(self.head, name)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:200]!r}"


def post(path: str, body: bytes, *lines: str) -> bytes:
    """A request as it goes over the wire."""
    return headers_of(path, len(body), *lines) + body


def headers_of(path: str, content_length: int, *lines: str) -> bytes:
    """The head of a request whose body is still to come."""
    head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {content_length}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


def over(process: psutil.Process) -> bool:
    """Whether it has ended, reaped or not."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two looks
        return True


def eventually(holds: Callable[[], bool], what: str, within_s: float = WAIT_S_MAX) -> None:
    """Look until it holds."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"{what}: not within {within_s} s"
        time.sleep(0.005)


@contextmanager
def quiet_after(server: Server, model: str = "half", body: Any = None) -> Iterator[None]:
    """Whatever happened inside: the service still answers, and holds nothing."""
    yield
    eventually(lambda: server.in_flight == 0, "nothing in flight")
    answer = server.predict(model, body or {"instances": [4.0]})
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models on disk."""
    return lay_out(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All small models, no keys, nothing booked."""
    with Server(repository, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running
