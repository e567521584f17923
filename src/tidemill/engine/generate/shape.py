"""What a language model's files say of it, before anything is loaded; runs in the child."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tidemill.core.errors import RefusedModel
from tidemill.engine.generate.limits import Shape
from tidemill.repository import genai, gguf

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""What openvino-genai reads GGUF of."""
_KIND = re.compile(r"\.(key|value)")
"""First in a state's name: openvino-genai calls the values' "…value" and "present.0.key" in one."""


def shape_of(path: Path, form: str) -> Shape:
    """Raises `RefusedModel`."""
    if form == "gguf":
        return _of_gguf(path, gguf.read(path))
    if form == "genai":
        return _of_ir(path, genai.read(path))
    raise RefusedModel(f"{path} is a model of the format {form!r}; the engine `generate` reads GGUF and OpenVINO's IR")


def _of_ir(path: Path, folder: genai.Folder) -> Shape:
    """Of the states that the graph keeps between tokens: one of keys and one of values for each layer."""
    import openvino

    try:
        graph = openvino.Core().read_model(str(path / genai.MODEL))
    except RuntimeError as error:
        raise RefusedModel(f"{path / genai.MODEL} cannot be read: {error}") from error
    shapes: dict[str, list[tuple[int, int]]] = {"key": [], "value": []}
    for node in graph.get_ops():
        if node.get_type_name() != "ReadValue":
            continue
        name, shape = node.get_variable_id(), node.get_output_partial_shape(0)
        kind = _KIND.search(name)
        if kind is None or shape.rank.get_length() != 4 or shape[1].is_dynamic or shape[3].is_dynamic:
            raise RefusedModel(f"{path}: its state {name!r} {shape} is none of keys or values, which alone are paged")
        shapes[kind[1]].append((shape[1].get_length(), shape[3].get_length()))
    keys, values = shapes["key"], shapes["value"]
    if not keys or len(keys) != len(values):
        raise RefusedModel(
            f"{path} keeps {len(keys)} states of keys and {len(values)} of values: it is no language model that"
            " generates word by word; export it with its cache as a state (text-generation-with-past)"
        )
    return Shape(
        layers=len(keys),  # those that differ are taken for as large as the largest
        kv_heads=max(heads for heads, _ in keys + values),
        key_width=max(width for _, width in keys),
        value_width=max(width for _, width in values),
        context_tokens=folder.context_tokens,
        template=folder.template,
    )


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
