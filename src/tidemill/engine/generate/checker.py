"""Compiles what answers must fit by openvino-genai; runs in the child that checks.

It compiles as the child that generates does, in a step of a pipeline with the same tokenizer; the model there is a toy.
"""

from __future__ import annotations

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

from tidemill.core.generation import Constraint
from tidemill.engine.generate import compiling, tiny
from tidemill.engine.generate.constraint import refused, words
from tidemill.engine.generate.kept import tokenizer_of
from tidemill.engine.generate.messages import Opening
from tidemill.engine.generate.pipeline import last_line
from tidemill.wire.peer import Bounds

BLOCKS = 4


async def run(link: socket.socket, bounds: Bounds) -> None:
    """Check until the owner is gone."""
    await compiling.run(link, bounds, Compiler)


class Compiler:
    """A pipeline with the tokenizer of the model, built anew after each failure."""

    def __init__(self, opening: Opening) -> None:
        self._tokenizer = tokenizer_of(opening)
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
