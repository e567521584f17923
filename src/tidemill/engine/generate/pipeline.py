"""openvino-genai's pipeline: loaded, spelled out, and asked for steps; runs in the child."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino
import openvino_genai
import psutil

from tidemill.core.errors import EngineFailed, PromptTooLong, RefusedModel, WrongValue
from tidemill.core.generation import Speaks
from tidemill.engine.generate import long_text
from tidemill.engine.generate.kept import tokenizer_of
from tidemill.engine.generate.limits import BLOCK_TOKENS, Shape, kv_blocks
from tidemill.engine.generate.messages import Opening, Ready
from tidemill.engine.generate.shape import shape_of
from tidemill.engine.generate.template import Template

WARM_UP_TOKENS: Final = 2
_WHERE = re.compile(r"^\[[0-9:]+\] \S+:\d+: (Check failed: \(.*?\) is false: )?")
_BYTE = re.compile(rb"<0x([0-9A-Fa-f]{2})>")


class Pipeline:
    """Life: built (raises `RefusedModel`), `add` and `step` any number of times; the process's end gives it back.

    A `step` that raises leaves the library's scheduler broken: nothing may be asked of it any more.
    """

    def __init__(self, opening: Opening) -> None:
        shape = shape_of(Path(opening.path), opening.format)
        blocks = kv_blocks(shape, opening.kv_bytes, psutil.virtual_memory().available, opening.running_max)
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = blocks
        scheduler.max_num_seqs = opening.running_max
        scheduler.max_num_batched_tokens = opening.step_tokens_max
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = not opening.scores
        properties = {"INFERENCE_NUM_THREADS": opening.threads, "KV_CACHE_PRECISION": "u8"}
        try:
            self._tokenizer = tokenizer_of(opening)
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(
                opening.path, self._tokenizer, scheduler, "CPU", **properties
            )
            self.default = self._pipeline.get_config()
            self.spelling = _spelling(self._tokenizer)
            self._warm_up()
        except RuntimeError as error:
            raise RefusedModel(f"openvino-genai cannot load {opening.path}: {last_line(error)}") from error
        source = shape.template or self._tokenizer.chat_template
        self.template = (
            Template(source, self._tokenizer.get_bos_token(), self._tokenizer.get_eos_token(), opening.template_s_max)
            if source
            else None
        )
        self.scores = opening.scores
        self._encoded_max = len(self._encode("a\nb " * shape.context_tokens, special=False))
        """Where the tokenizer would cut, without a word, if that is no more than the model holds."""
        self._tokens_max = min(shape.context_tokens, blocks * BLOCK_TOKENS)
        held = self._pipeline.get_metrics().cache_size_in_bytes
        self.ready = Ready(self._speaks(shape), blocks * BLOCK_TOKENS, held)

    def _speaks(self, shape: Shape) -> Speaks:
        chats = self.template is not None
        tools = self.template is not None and self.template.tools
        return Speaks(self._tokens_max, len(self.spelling), chats, tools)

    def tokens(self, text: str, special: bool) -> list[int]:
        """Raises `PromptTooLong` for one that the tokenizer would cut; who scores texts cuts them himself."""
        if self.scores:
            return long_text.tokens(text, self._encode, self._encoded_max)
        found = self._encode(text, special)
        most = min(self._tokens_max, self._encoded_max)
        if len(found) >= most:
            raise PromptTooLong(f"the text has {most} tokens or more; the model takes fewer")
        return found

    def _encode(self, text: str, special: bool) -> list[int]:
        found: list[int] = self._tokenizer.encode([text], add_special_tokens=special).input_ids.data[0].tolist()
        return found

    def known(self, tokens: tuple[int, ...]) -> list[int]:
        """Raises `WrongValue` for a token that the model does not know."""
        strange = next((each for each in tokens if not 0 <= each < len(self.spelling)), None)
        if strange is not None:
            raise WrongValue(f"token {strange}: the model knows 0 to {len(self.spelling) - 1}", param="prompt")
        return list(tokens)

    def add(self, number: int, tokens: list[int], config: Any) -> Any:
        """A `GenerationHandle`."""
        ids = openvino.Tensor(np.array([tokens], np.int64))
        try:
            return self._pipeline.add_request(number, ids, config)
        except RuntimeError as error:
            raise WrongValue(f"openvino-genai refuses the request: {last_line(error)}") from error

    def busy(self) -> bool:
        return bool(self._pipeline.has_non_finished_requests())

    @property
    def kv_share(self) -> float:
        """The share of the cache's blocks that the last step used."""
        return float(self._pipeline.get_metrics().cache_usage) / 100

    def step(self) -> None:
        """Raises `EngineFailed`, after which the pipeline is of no use."""
        try:
            self._pipeline.step()
        except RuntimeError as error:
            raise EngineFailed(f"openvino-genai failed: {last_line(error)}") from error

    def _warm_up(self) -> None:
        """The first step takes the cache's memory and compiles; nobody need wait for it."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = WARM_UP_TOKENS
        self._pipeline.add_request(0, openvino.Tensor(np.array([[1, 2, 3]], np.int64)), config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()


def _spelling(tokenizer: Any) -> list[bytes]:
    """The bytes that each token stands for, after another one; empty for those that steer.

    A tokenizer that decodes to text drops what is no whole character: then its vocabulary knows the bytes.
    """
    vocabulary: dict[bytes, int] = tokenizer.get_vocab()
    count = max(vocabulary.values()) + 1
    (before,) = tokenizer.encode(["a"], add_special_tokens=False).input_ids.data.tolist()
    lead = len(tokenizer.decode(before))
    texts = tokenizer.decode([[*before, token] for token in range(count)], skip_special_tokens=True)
    spelling = [text[lead:].encode() for text in texts]
    for raw, token in vocabulary.items():
        byte = _BYTE.fullmatch(raw)
        if byte is not None and spelling[token] != raw:
            spelling[token] = bytes.fromhex(byte[1].decode())
        elif not _is_text(raw):
            spelling[token] = raw
    return spelling


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def last_line(error: BaseException, characters: int = 400) -> str:
    """openvino's messages end with what happened; before it stands where in its source."""
    lines = [line.strip() for line in str(error).strip().split("\n") if line.strip()]
    return _WHERE.sub("", lines[-1] if lines else type(error).__name__)[:characters]
