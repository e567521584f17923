"""Hugging Face folders made of the kit's model, and what `tidemill compile` makes of them where it can."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import needs
from serving import environment
from tidemill.core.places import cache_dir
from tidemill.kit.install import install

MADE_S_MAX = 900.0
"""Half a minute on a machine that does nothing else."""


def source(tiny: bool = False) -> Path:
    """SmolLM2, or a small model of random weights with its tokenizer; made once, and kept."""
    folder = cache_dir() / "huggingface-of-tests" / ("tiny" if tiny else "smollm2")
    if not (folder / "model.safetensors").is_file():
        (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
        script = needs.ROOT / "tests/made_huggingface.py"
        command = [needs.export_python(), script, home / "1/model.gguf", folder, *(["tiny"] if tiny else [])]
        subprocess.run(command, check=True, capture_output=True, timeout=MADE_S_MAX, env=environment())
    return folder


def command(*words: str | Path) -> list[str]:
    return [str(needs.export_python()), "-m", "tidemill", "compile", *map(str, words)]


def variables(**extra: str) -> dict[str, str]:
    return environment(PYTHONPATH=str(needs.ROOT / "src"), **extra)


def compiled(*words: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """`tidemill compile WORDS`."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, check=False, timeout=MADE_S_MAX, env=variables(**extra)
    )


def exported(tiny: bool = False, **extra: str) -> dict[str, Any]:
    """What `tidemill compile --json` tells of one of the sources."""
    done = compiled(source(tiny), "--json", **extra)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
