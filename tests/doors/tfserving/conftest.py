from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import needs

ANSWER_S_MAX = 60


@pytest.fixture(scope="session")
def tensorflow_side() -> Iterator[Callable[..., Any]]:
    """Asks `tensorflow_side.py`, in the environment of TensorFlow: `tensorflow_side(verb, **arguments)`."""
    python = needs.tensorflow_python()
    script = Path(__file__).with_name("tensorflow_side.py")
    child = subprocess.Popen(
        [python, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert child.stdin is not None
    assert child.stdout is not None

    def ask(verb: str, **arguments: Any) -> Any:
        watch = threading.Timer(ANSWER_S_MAX, child.kill)
        watch.start()
        try:
            child.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        finally:
            watch.cancel()
        assert line, f"the TensorFlow side ended at {verb}"
        return json.loads(line)

    yield ask
    child.stdin.close()
    child.wait(ANSWER_S_MAX)
    child.stdout.close()
