"""What the folder of a language model in OpenVINO's IR says of itself, without OpenVINO; in the owner and in the child
that generates.

openvino-genai's layout: the model, its tokenizer and its detokenizer, each an `.xml` with a `.bin`, and Hugging Face's
`config.json` beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from tidemill.core.errors import RefusedModel
from tidemill.repository import huggingface

MODEL, TOKENIZER, DETOKENIZER = "openvino_model.xml", "openvino_tokenizer.xml", "openvino_detokenizer.xml"
CONTEXTS: Final = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length",
)  # fmt: skip
"""What configurations call the number of tokens that a model holds at once."""
TEMPLATE_BYTES_MAX: Final = 2**20


class Folder(msgspec.Struct, frozen=True):
    """`template` is the one for chat, "" where the folder's files have none."""

    config: dict[str, Any]
    context_tokens: int
    template: str
    size_bytes: int


def read(folder: Path) -> Folder:
    """Raises `RefusedModel`."""
    for name in (MODEL, TOKENIZER, DETOKENIZER):
        for each in (folder / name, (folder / name).with_suffix(".bin")):
            if not each.is_file():
                raise RefusedModel(
                    f"{folder} lacks {each.name}; a language model in OpenVINO's IR is {MODEL}, {TOKENIZER} and"
                    f" {DETOKENIZER}, each with its .bin. To serve the tensors of {MODEL} alone, say"
                    f' file = "{MODEL}" in tidemill.toml'
                )
    if not (folder / huggingface.CONFIG).is_file():
        raise RefusedModel(f"{folder} lacks {huggingface.CONFIG}, which tells how many tokens the model holds at once")
    config = huggingface.config(folder)
    sizes = [(folder / name).with_suffix(end).stat().st_size for name in (MODEL, TOKENIZER) for end in (".xml", ".bin")]
    return Folder(config, _context(folder, config), template(folder), sum(sizes))


def _context(folder: Path, config: dict[str, Any]) -> int:
    inner = config.get("text_config")
    for said in (config, inner if isinstance(inner, dict) else {}):
        for name in CONTEXTS:
            value = said.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    raise RefusedModel(
        f"{folder / huggingface.CONFIG} does not tell how many tokens the model holds at once; say it there, as"
        f' "{CONTEXTS[0]}"'
    )


def template(folder: Path) -> str:
    """The model's own template for chat: `chat_template.jinja`, else the one in `tokenizer_config.json`. Raises
    `RefusedModel` for a file that cannot be read."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            if file.stat().st_size > TEMPLATE_BYTES_MAX:
                raise RefusedModel(f"{file} has {file.stat().st_size} bytes, at most {TEMPLATE_BYTES_MAX} are read")
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedModel(f"{file} cannot be read: {error}") from error
    if not (folder / "tokenizer_config.json").is_file():
        return ""
    said = huggingface.json_object(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(said, list):  # several, each with a name
        named = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
        said = named.get("default")
    return said if isinstance(said, str) else ""
