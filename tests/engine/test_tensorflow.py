"""The engine on TensorFlow passes the engines' contract suite and its own, in the environment that has TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

import needs

TESTS = Path(__file__).parents[1]
RUN_S_MAX = 240
# TensorFlow's own libraries come first; what Tidemill needs besides comes from where this test runs.
RUNNER = """
import sys
sys.path.append(sys.argv.pop(1))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    libraries = sysconfig.get_path("purelib")
    return subprocess.run(
        [needs.tensorflow_python(), "-c", RUNNER, libraries, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "CUDA_VISIBLE_DEVICES": "-1"},
    )


@pytest.mark.slow
def test_contract_and_its_own_tests_pass_beside_tensorflow() -> None:
    files = "tests/contracts/test_engine.py", "tests/engine/in_tensorflow.py", "tests/doors/tfserving/in_tensorflow.py"
    done = run("-p", "no:cacheprovider", "-k", "tensorflow", *files)
    found = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert found is not None
    assert int(found[1]) >= 44, "fewer tests ran than there are"
