"""A language model on vLLM as the owner sees it: checked, and opened in a child; runs in the owner process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from tidemill.core.errors import MissingPart, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.engine.generate.generator import ChildGenerator, opened

MODULE: Final = "tidemill.engine.on_vllm.process"
FORMATS: Final = ("huggingface",)


async def load(package: ModelPackage, settings: Settings) -> ChildGenerator:
    """Raises `RefusedModel`, `MissingPart`."""
    if find_spec("vllm") is None:  # it is the child that loads it
        raise MissingPart("the engine `vllm` needs vllm: pip install 'tidemill[vllm]'")
    if package.format not in FORMATS:
        raise RefusedModel(
            f"{package.path} is a model of the format {package.format!r}; the engine `vllm` reads folders of Hugging"
            " Face: config.json, *.safetensors and a tokenizer"
        )
    return await opened(package, settings, MODULE, package.config.vllm)
