"""What a test needs from the machine: gives it, or skips the test; fails it where everything must be there.

`CI=true` or `TIDEMILL_REQUIRE_ALL=1` say that everything must: then nothing is skipped unseen.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
TENSORFLOW_PYTHON = Path(os.environ.get("TIDEMILL_TF_PYTHON", ROOT / ".venvs/tensorflow/bin/python"))
LLAMA_SERVER = Path(os.environ.get("TIDEMILL_LLAMA_SERVER", ROOT / ".venvs/peer-llamacpp/bin/llama-server"))
SCHEMATHESIS = Path(os.environ.get("TIDEMILL_SCHEMATHESIS", ROOT / ".venvs/schemathesis/bin/st"))
EXPORT_PYTHON = Path(os.environ.get("TIDEMILL_EXPORT_PYTHON", ROOT / ".venvs/llm-export/bin/python"))
JAVA_PACKAGES = "/usr/share/java/grpc-netty.jar"
EVERYTHING = os.environ.get("CI") == "true" or os.environ.get("TIDEMILL_REQUIRE_ALL") == "1"


def chromium() -> str:
    """The path of Debian's browser."""
    return shutil.which("chromium") or _missing("needs Debian's chromium: apt-get install chromium")


def tensorflow_python() -> Path:
    """The Python of an environment with TensorFlow and its serving client."""
    if not TENSORFLOW_PYTHON.is_file():
        _missing(f"no TensorFlow at {TENSORFLOW_PYTHON}: `make test` brings it, or TIDEMILL_TF_PYTHON names its Python")
    return TENSORFLOW_PYTHON


def schemathesis() -> Path:
    """The command of an environment with Schemathesis."""
    if not SCHEMATHESIS.is_file():
        _missing(f"no Schemathesis at {SCHEMATHESIS}: `make test` brings it, or TIDEMILL_SCHEMATHESIS names it")
    return SCHEMATHESIS


def llama_server() -> Path:
    """llama.cpp's server, for the soak alone: building it takes a quarter of an hour."""
    if not LLAMA_SERVER.is_file():
        pytest.skip(
            f"no {LLAMA_SERVER}: `make .venvs/peer-llamacpp/.installed` builds it, or TIDEMILL_LLAMA_SERVER names it"
        )
    return LLAMA_SERVER


def export_python() -> Path:
    """The Python of the environment that exports language models."""
    if not EXPORT_PYTHON.is_file():
        _missing(f"no {EXPORT_PYTHON}: `make llm-export` brings it, or TIDEMILL_EXPORT_PYTHON names another")
    return EXPORT_PYTHON


def programs(*names: str) -> None:
    """Commands that a system's packages bring."""
    for name in names:
        if shutil.which(name) is None:
            _missing(f"needs {name}, which `make test` installs where it may (tests/peers/prepare)")


def java_packages() -> str:
    """The folder below which Debian's packages of gRPC for Java lie: "" where they are installed."""
    root = os.environ.get("JAVA_PACKAGES_ROOT", "")
    if not Path(root + JAVA_PACKAGES).is_file():
        _missing(f"no {root + JAVA_PACKAGES}: examples/java/grpc.sh says which packages bring it")
    return root


def brought(holds: bool, reason: str) -> None:
    """What a registry brings while a test runs."""
    if not holds:
        _missing(reason)


def pygrpc_native() -> None:
    """gRPC's other engine."""
    if find_spec("pygrpc_native") is None:
        _missing("no pygrpc-native: pip install 'tidemill[grpc-native]'")


def _missing(reason: str) -> NoReturn:
    if EVERYTHING:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
