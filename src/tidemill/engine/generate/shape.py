"""What a language model's files say of it, before anything is loaded; runs in the child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidemill.core.errors import RefusedModel
from tidemill.engine.generate.limits import Shape
from tidemill.repository import gguf

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""What openvino-genai reads GGUF of."""


def shape_of(path: Path, form: str) -> Shape:
    """Raises `RefusedModel`."""
    if form == "gguf":
        return _of_gguf(path, gguf.read(path))
    raise RefusedModel(f"{path} is a model of the format {form!r}; the engine `generate` reads GGUF")


def _of_gguf(path: Path, facts: dict[str, Any]) -> Shape:
    kind = facts.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise RefusedModel(f"{path} is a GGUF of the architecture {kind!r}; read are {', '.join(ARCHITECTURES)}")

    def fact(name: str) -> int:
        value = facts.get(f"{kind}.{name}")
        if not isinstance(value, int) or value <= 0:
            raise RefusedModel(f"{path} does not tell {kind}.{name}, or tells nonsense: {value!r}")
        return value

    heads = fact("attention.head_count")
    width = fact("embedding_length") // heads
    template = facts.get("tokenizer.chat_template", "")
    return Shape(
        layers=fact("block_count"),
        kv_heads=facts.get(f"{kind}.attention.head_count_kv") or heads,
        key_width=facts.get(f"{kind}.attention.key_length") or width,
        value_width=facts.get(f"{kind}.attention.value_length") or width,
        context_tokens=fact("context_length"),
        template=template if isinstance(template, str) else "",
    )
