"""What vLLM finds around it: no way out of this machine, no words on the service's output; runs in the child, first."""

from __future__ import annotations

import os
import sys
from typing import Final

ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",  # a model is a folder: nothing is fetched for it
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # its parts meet here and nowhere else
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",  # no pickles between its parts
    "TOKENIZERS_PARALLELISM": "false",
}
"""What the operator has set comes first."""


def prepare() -> None:
    """Before vLLM is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    sys.stdout.flush()
    os.dup2(2, 1)  # the service's own output is read by programs


def take_threads(threads: int) -> None:
    """For what computes on this machine's cores: it shares them with other models, so it is not bound to any and does
    not spin while it waits (on busy cores a word took thirty times as long), and its only worker needs no process."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # of the worker; the engine has its process anyway
