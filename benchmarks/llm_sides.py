"""The three that generate side by side, each in processes of its own: the bare pipeline, the service, llama.cpp's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson
import psutil
from common import HERE, HOST, BenchmarkFailed, Server, answers_http, free_port

from tidemill.client import load
from tidemill.client.bench import words
from tidemill.client.result import Answer, Retries
from tidemill.engine.generate.limits import kv_blocks
from tidemill.engine.generate.shape import shape_of

MODEL = "smollm2"
CONTEXT_TOKENS = 1024
"""Of one slot of llama.cpp's server; prompt and answer take 192, a repeated prefix 600."""
KV_BYTES = 512 * 2**20
"""Of the pipelines' cache: room for some forty such slots."""
ANSWER_S_MAX = 300.0
COMPILE_S_MAX = 600.0
STOP_S_MAX = 15.0

Prompt = Sequence[int]
Prompts = Sequence[Prompt]


@dataclass(frozen=True, slots=True)
class Wave:
    """Prompts sent at once, and all answered. `first_s` is empty where whole answers are asked for."""

    tokens_per_s: float
    first_s: list[float] = field(default_factory=list)


class Side(Protocol):
    @property
    def name(self) -> str: ...

    async def wave(self, prompts: Prompts, new: int) -> Wave:
        """Ask for `new` tokens after each of `prompts`. Raises `BenchmarkFailed`."""

    def resident_bytes(self) -> int:
        """Of all its processes together; what they share counts in each."""


class Bare:
    """`Side` of `llm_bare.py`."""

    name = "openvino-genai's pipeline"

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen

    async def wave(self, prompts: Prompts, new: int) -> Wave:
        assert self._popen.stdin
        self._popen.stdin.write(json.dumps({"prompts": [list(each) for each in prompts], "new": new}) + "\n")
        self._popen.stdin.flush()
        return Wave(new * len(prompts) / float(await asyncio.to_thread(self.line)))

    def line(self) -> str:
        assert self._popen.stdout
        line = self._popen.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"{self.name} ended with {self._popen.wait(STOP_S_MAX)}")
        return line

    def resident_bytes(self) -> int:
        return resident_bytes(self._popen.pid)


@dataclass(frozen=True, slots=True)
class OpenAIServer:
    """`Side` of a server that speaks OpenAI's dialect: `/v1/completions`, streamed with usage, or whole."""

    name: str
    url: str
    headers: dict[str, str]
    server: Server
    streams: bool = True

    async def wave(self, prompts: Prompts, new: int) -> Wave:
        firsts: list[float] = []
        wrong: list[str] = []

        def take(answer: Answer) -> None:
            told = self._told(answer) if answer.status == 200 else f"{answer.status} {answer.error}"
            if isinstance(told, str):
                wrong.append(f"{told}: {answer.body[:300]!r}")
            elif told != new:
                wrong.append(f"{told} tokens instead of {new}")
            else:
                firsts.append(answer.first_s or 0.0)

        result = await load.run(
            self.url + words.PATH,
            [self.body(each, new) for each in prompts],
            self.headers | {"content-type": "application/json"},
            in_flight=len(prompts),
            requests=len(prompts),
            on_answer=take,
            retries=Retries(answer_s_max=ANSWER_S_MAX),
            streamed=self.streams,
        )
        if wrong or len(firsts) != len(prompts):
            raise BenchmarkFailed(
                f"{self.name}: {len(firsts)} of {len(prompts)} came; {wrong[:1]}\n{self.server.log_tail()}"
            )
        return Wave(new * len(prompts) / result.wall_s, firsts if self.streams else [])

    def _told(self, answer: Answer) -> int | str:
        """The tokens of an answer, or what is wrong with it."""
        if not self.streams:
            return int(orjson.loads(answer.body)["usage"]["completion_tokens"])
        told = words.told(answer.body)
        return told if isinstance(told, str) else "without a first event" if answer.first_s is None else told[1]

    def body(self, prompt: Prompt, new: int) -> bytes:
        asked = {"model": MODEL, "prompt": list(prompt), "max_tokens": new, "ignore_eos": True, "temperature": 0}
        if self.streams:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return orjson.dumps(asked)

    def resident_bytes(self) -> int:
        return resident_bytes(self.server.pid)


def resident_bytes(pid: int) -> int:
    root = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))


def compiled(file: Path) -> Path:
    """What `tidemill compile` builds of `file`."""
    command = [sys.executable, "-m", "tidemill", "compile", str(file), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=COMPILE_S_MAX)
    if done.returncode:
        raise BenchmarkFailed(f"tidemill compile ended with {done.returncode}")
    return Path(json.loads(done.stdout)["path"])


@contextmanager
def bare(model: Path, threads: int, running_max: int) -> Iterator[Bare]:
    """On a file of GGUF, or a folder of OpenVINO's IR."""
    blocks = kv_blocks(shape_of(model, "gguf" if model.is_file() else "genai"), KV_BYTES, 0, running_max)
    command = [sys.executable, str(HERE / "llm_bare.py"), str(model), "--threads", str(threads)]
    command += ["--blocks", str(blocks), "--running-max", str(running_max)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        try:
            made = Bare(popen)
            made.line()
            yield made
        finally:
            popen.kill()  # the library's own end complains about what it still holds


@contextmanager
def llama_cpp(binary: Path, file: Path, threads: int, slots: int) -> Iterator[OpenAIServer]:
    """With as many slots as requests, `CONTEXT_TOKENS` each; and without the cache beside the slots, which takes
    memory and copies what no prompt here asks for again."""
    port = free_port()
    command = [str(binary), "--model", str(file), "--alias", MODEL, "--host", HOST, "--port", str(port), "--offline"]
    command += ["--threads", str(threads), "--threads-batch", str(threads), "--parallel", str(slots)]
    command += ["--ctx-size", str(slots * CONTEXT_TOKENS), "--cache-ram", "0", "--no-ui"]
    base = f"http://{HOST}:{port}"
    with Server(f"llama.cpp with {slots} slots", command, [answers_http(f"{base}/health")]) as server:
        yield OpenAIServer("llama.cpp's server", base, {}, server)


def llama_cpp_version(binary: Path) -> str:
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False, timeout=STOP_S_MAX)
    lines = [each for each in (done.stdout + done.stderr).splitlines() if each.startswith("version")]
    return lines[0].partition(":")[2].strip() if lines else "unknown"
