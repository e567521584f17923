"""For every test: no setting of this machine for Tidemill reaches it or its services, and OpenVINO reports nothing."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from hypothesis import settings

import needs

# An example may take as long as it takes: a shared machine stops for a second now and then, and that is no failure.
settings.register_profile("tidemill", deadline=None)
settings.load_profile("tidemill")

# vLLM pins what others pin too, so it has an environment and a target of its own: `make test-vllm`.
collect_ignore = [] if find_spec("vllm") else ["engine/on_vllm/test_real.py", "service/test_vllm.py"]

KEPT = "TIDEMILL_CACHE_DIR"
"""What was fetched once need not be fetched by every run."""


def pytest_configure() -> None:
    assert needs.ROOT.is_dir()  # `needs` has read the variables that are meant for tests
    for name in list(os.environ):
        if name.startswith("TIDEMILL_") and name != KEPT:
            del os.environ[name]
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
