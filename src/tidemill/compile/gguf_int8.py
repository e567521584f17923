"""A GGUF to OpenVINO's IR with its weights in int8, one scale a row; in the command line's process.

openvino-genai's own reader makes the graph and the tokenizer, as it does when the file is served. It rounds the weights
of many formats; those of the file take their place (`gguf_weights.py`) before they are brought to int8
(`channelwise.py`), and what comes of it is held against the graph with the weights of the file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from tidemill.compile import channelwise
from tidemill.compile.apart import PROBE, log_probabilities, nats
from tidemill.compile.gguf_weights import Weights
from tidemill.core.errors import MissingPart, RefusedExport
from tidemill.repository import gguf, huggingface
from tidemill.repository.genai import CONTEXTS, DETOKENIZER, MODEL, TOKENIZER

REVISION: Final = "1"
"""Of what is written here; another one makes what was built before stale."""
WEIGHTS: Final = "int8"
STEPS: Final = (
    "reading the graph", "reading the weights", "bringing the weights to int8", "writing the tokenizer",
    "holding it against the source",
)  # fmt: skip


def made_with() -> dict[str, str]:
    """What the result depends on besides the model. Raises `MissingPart`."""
    if any(find_spec(each) is None for each in ("openvino_genai", "gguf")):
        raise MissingPart("compiling a GGUF needs openvino-genai and gguf: pip install 'tidemill[llm]'")
    return {"gguf_int8": REVISION, **{each: version(each) for each in ("openvino", "openvino-genai", "gguf")}}


def build(source: Path, folder: Path, progress: Callable[[str, int, int], None]) -> dict[str, float]:
    """Write the model into `folder`; returns how far it is from the file: `nats`, the mean Kullback-Leibler divergence
    of its next token, over a sentence.

    Raises `RefusedModel` for what is no GGUF, `RefusedExport` for one that openvino-genai does not read.
    """
    facts = gguf.read(source)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        with TemporaryDirectory(dir=folder) as read:
            return _build(source, facts, Path(read), folder, lambda step: progress(STEPS[step], step, len(STEPS)))
    except (RuntimeError, IndexError) as error:
        told = (str(error).strip().splitlines() or ["it does not say why"])[-1]
        raise RefusedExport(f"openvino-genai does not read {source}: {told[:400]}") from error


def _build(
    source: Path, facts: dict[str, Any], read: Path, folder: Path, step: Callable[[int], None]
) -> dict[str, float]:
    import openvino
    import openvino_genai

    step(0)
    link = read / "model.gguf"  # the library writes beside the file that it reads
    link.symlink_to(source.resolve())
    tokenizer = openvino_genai.Tokenizer(link, enable_save_ov_model=True)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 1
    config = openvino_genai.ContinuousBatchingPipeline(
        str(link), tokenizer, scheduler, "CPU", enable_save_ov_model=True
    ).get_config()
    ids: list[int] = tokenizer.encode([PROBE], add_special_tokens=False).input_ids.data[0].tolist()
    graph = openvino.Core().read_model(read / MODEL)
    step(1)
    channelwise.restore(graph, Weights(source, _heads(facts)).take)
    wanted = log_probabilities(graph, ids)
    step(2)
    if not channelwise.rewrite(graph):
        raise RefusedExport(f"{source} has no weights that can be brought to int8; serve it as it is")
    openvino.save_model(graph, folder / MODEL, compress_to_fp16=False)
    step(3)
    for name in (TOKENIZER, DETOKENIZER):
        for each in (read / name, (read / name).with_suffix(".bin")):
            each.rename(folder / each.name)
    kind = facts.get("general.architecture")
    told = {"model_type": kind, CONTEXTS[0]: facts.get(f"{kind}.context_length")}
    (folder / huggingface.CONFIG).write_bytes(msgspec.json.encode(told))
    ends = {"eos_token_id": sorted({config.eos_token_id, *config.stop_token_ids})}
    (folder / "generation_config.json").write_bytes(msgspec.json.encode(ends))
    template = facts.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    step(4)
    return {"nats": nats(log_probabilities(folder / MODEL, ids), wanted)}


def _heads(facts: dict[str, Any]) -> tuple[int, int]:
    """Those whose rows are interleaved, of queries and of keys; other architectures' are as a graph has them."""
    if facts.get("general.architecture") != "llama":
        return 0, 0
    heads = int(facts.get("llama.attention.head_count") or 0)
    return heads, int(facts.get("llama.attention.head_count_kv") or heads)
