"""Servers as subprocesses, and what they cost: start, wait until ready, CPU time of the process tree, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tidemill.client.cpu import tree_cpu_s
from tidemill.kit.install import install

HERE = Path(__file__).parent
HOST = "127.0.0.1"
READY_S_MAX = 60.0
STOP_S_MAX = 15.0
LOG_LINES = 30


class BenchmarkFailed(Exception):
    """A figure that would mean nothing: the server did not start, or did not answer rightly."""


def leave_on_sigterm() -> None:
    """So that a benchmark that is told to end stops the servers it started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port: int = taken.getsockname()[1]
        return port


def answers_http(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - a URL of our own
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return ready


def accepts(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            return False
        return True

    return ready


class Server:
    """A subprocess that listens.

    Life: entered, it is started and waited for until every check of `ready` holds; left, it gets SIGTERM, and SIGKILL
    with its whole group when that took too long. Raises `BenchmarkFailed` with the end of its log when it dies early.
    """

    def __init__(self, name: str, command: Sequence[str], ready: Sequence[Callable[[], bool]]) -> None:
        self.name = name
        self._command = list(command)
        self._ready = ready

    def __enter__(self) -> Server:
        self._log = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def cpu_s(self) -> float:
        """User and system time of the process and all its children so far, reaped ones included."""
        return tree_cpu_s(self.pid)

    def log_tail(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-LOG_LINES:])

    def _wait(self) -> None:
        ends = time.monotonic() + READY_S_MAX
        for ready in self._ready:
            while not ready():
                if self._popen.poll() is not None:
                    raise BenchmarkFailed(f"{self.name} ended with {self._popen.returncode}:\n{self.log_tail()}")
                if time.monotonic() > ends:
                    raise BenchmarkFailed(f"{self.name} was not ready after {READY_S_MAX} s:\n{self.log_tail()}")
                time.sleep(0.05)

    def _stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # some servers leave processes behind
        self._log.close()


@dataclass(frozen=True, slots=True)
class Tidemill:
    """A running service under test."""

    server: Server
    http_port: int
    grpc_port: int
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"{HOST}:{self.grpc_port}"


@contextmanager
def tidemill(
    models: Path, wait_for: Sequence[str], *flags: str, key: bool = True, python: Sequence[str] = (sys.executable,)
) -> Iterator[Tidemill]:
    """`tidemill serve` on `models`, ready when every model of `wait_for` is; with a key of tenant `bench`."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as data_dir:
        secret = _new_key(data_dir) if key else None
        http_port, grpc_port = free_port(), free_port()
        command = [*python, "-m", "tidemill", "serve", "--models", str(models), "--http-port", str(http_port)]
        command += ["--grpc-port", str(grpc_port), "--no-console", "--data-dir", data_dir, *flags]
        base = f"http://{HOST}:{http_port}"
        name = " ".join(["tidemill", *flags])
        with Server(name, command, [answers_http(f"{base}/readyz"), accepts(grpc_port)]) as server:
            yield Tidemill(server, http_port, grpc_port, secret)


def _new_key(data_dir: str) -> str:
    command = [
        sys.executable,
        "-m",
        "tidemill",
        "keys",
        "create",
        "--tenant",
        "bench",
        "--data-dir",
        data_dir,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=READY_S_MAX)
    if done.returncode:
        raise BenchmarkFailed(f"tidemill keys create ended with {done.returncode}:\n{done.stderr}")
    key: str = json.loads(done.stdout)["key"]
    return key


def echo_http(port: int) -> Server:
    return Server(
        "bare uvicorn echo", [sys.executable, str(HERE / "echo_http.py"), "--port", str(port)], [accepts(port)]
    )


def echo_grpc(port: int, *flags: str) -> Server:
    command = [sys.executable, str(HERE / "echo_grpc.py"), "--port", str(port), *flags]
    return Server(" ".join(["bare grpc.aio echo", *flags]), command, [accepts(port)])


@contextmanager
def kit_models(folder: Path | None, *names: str) -> Iterator[Path]:
    """A repository with these models of the kit: in `folder`, which stays, or in one that is made and thrown away."""
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        install(list(names), into=place)
        yield place
