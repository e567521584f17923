"""The kit's language model as a folder of Hugging Face, for vLLM; made once, in the environment of `make test-vllm`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from needs import ROOT
from tidemill.core.places import cache_dir
from tidemill.kit.install import install

MADE_BY = ROOT / "tests/peers/from_gguf.py"
MADE_S_MAX = 600.0


def smollm2() -> Path:
    """SmolLM2 as safetensors of 32 bits, with its tokenizer and its template for chat."""
    models = cache_dir() / "models-of-tests"
    (home,) = install(["smollm2"], models)
    folder = models / "smollm2-huggingface"
    if not folder.is_dir():
        source = home / "1" / "model.gguf"
        subprocess.run([sys.executable, MADE_BY, source, folder], check=True, timeout=MADE_S_MAX)
    return folder
