"""vLLM's own server of OpenAI's dialect, as a real process; in the environment of `make test-vllm`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

import on_vllm_models
from tidemill.engine.on_vllm.surroundings import ENVIRONMENT

START_S_MAX = 300.0
THREADS = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
FLAGS = ("--enforce-eager", "--dtype=float32", f"--kv-cache-memory-bytes={512 * 2**20}", "--max-model-len=auto")


@contextmanager
def vllm_server(name: str, key: str) -> Iterator[str]:
    """Its address, when it answers; it serves SmolLM2 as `name` to whoever has `key`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--model={on_vllm_models.smollm2()}", f"--served-model-name={name}", f"--api-key={key}", *FLAGS]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT, **THREADS})
        try:
            yield _answering(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(60)


def _answering(process: subprocess.Popen[bytes], url: str) -> str:
    until = time.monotonic() + START_S_MAX
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return url
        except httpx.TransportError:
            pass
        assert process.poll() is None, "vLLM's server has ended"
        assert time.monotonic() < until, "vLLM's server is not there in time"
        time.sleep(0.2)
