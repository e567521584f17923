"""The child that checks: compiles what answers must fit, one after another, so that what breaks or hangs the compiler
breaks or hangs nobody's answer; its whole life.

It compiles as the child that generates does, in a step of a pipeline with the same tokenizer; the model there is a toy.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino
import openvino_genai

from tidemill.core.errors import TidemillError
from tidemill.core.generation import Constraint, Speaks
from tidemill.core.request import Usage
from tidemill.engine.generate import tiny
from tidemill.engine.generate.child import Owner
from tidemill.engine.generate.constraint import refused, words
from tidemill.engine.generate.messages import Add, Part, Ready, Step, Topic, encode
from tidemill.engine.generate.pipeline import last_line
from tidemill.wire.peer import Bounds, open_peer
from tidemill.wire.problems import problem_of

BLOCKS = 4


async def run(link: socket.socket, bounds: Bounds) -> None:
    """Load the tokenizer that the owner names, then check until the owner is gone, or the compiler failed: a pipeline
    whose step failed is of no use any more, and the owner starts another process."""
    owner = Owner()
    peer = await open_peer(link, bounds, owner)
    try:
        opening = await owner.opening
    except asyncio.CancelledError:
        return
    compiler = Compiler(opening.path)
    peer.tell(int(Topic.READY), encode(Ready(Speaks(0), 0, 0)))
    while not owner.gone:
        await owner.news.wait()
        owner.news.clear()
        added, owner.added = owner.added, []
        for each in added:
            peer.tell(int(Topic.STEP), encode(Step((_checked(compiler, each),))))
    peer.close()


def _checked(compiler: Compiler, asked: Add) -> Part:
    constraint = asked.generate.constraint if asked.generate else None
    try:
        if constraint is not None:
            compiler.check(constraint)
    except TidemillError as error:
        return Part(asked.number, problem=problem_of(error))
    return Part(asked.number, usage=Usage())


class Compiler:
    """A pipeline with the tokenizer of the model at `path`, built anew after each failure."""

    def __init__(self, path: str) -> None:
        self._tokenizer = openvino_genai.Tokenizer(path)
        self._vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        self._steering = {token for text, token in self._vocabulary.items() if text.startswith(b"<|")}
        self._pipeline = self._built()

    def _built(self) -> Any:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = BLOCKS
        with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
            path = Path(folder) / "tiny.gguf"
            tiny.write(path, max(self._vocabulary.values()) + 1)
            return openvino_genai.ContinuousBatchingPipeline(str(path), self._tokenizer, scheduler, "CPU")

    def check(self, constraint: Constraint) -> None:
        """Raises `WrongValue`."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.eos_token_id = eos = self._tokenizer.get_eos_token_id()
        drawn: list[int] = []
        try:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(**words(constraint))
            handle = self._pipeline.add_request(0, openvino.Tensor(np.array([[eos]], np.int64)), config)
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            while handle.can_read():
                drawn += [token for each in handle.read().values() for token in each.generated_ids]
        except RuntimeError as error:
            self._pipeline = self._built()
            raise refused(last_line(error)) from error
        if not drawn or (drawn[0] in self._steering and drawn[0] != eos):
            raise refused("nothing fits it")
