"""What an import costs and sets going: nothing heavy for help, and no thread, socket or fork for anyone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tidemill.cli.main import VERBS, tidemill

SEEN = Path(__file__).with_name("imports_seen.py")
HEAVY = {"numpy", "onnxruntime", "openvino", "onnx", "torch", "ray", "nicegui", "grpc", "starlette", "uvicorn"}
IMPORT_S_MAX = 60


def seen(*words: str) -> dict[str, Any]:
    ran = subprocess.run([sys.executable, SEEN, *words], check=True, capture_output=True, timeout=IMPORT_S_MAX)
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def commands() -> list[list[str]]:
    """The command, its verbs, and theirs."""
    found: list[list[str]] = [[]]
    context = click.Context(tidemill)
    for verb in VERBS:
        found.append([verb])
        command = tidemill.get_command(context, verb)
        if isinstance(command, click.Group):
            found += [[verb, name] for name in command.commands]
    return found


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(["tidemill", *words]))
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    told = seen("command", *words, "--help")
    assert told["code"] == 0
    assert HEAVY.isdisjoint(told["loaded"]), HEAVY.intersection(told["loaded"])
    assert told["events"] == []


def test_importing_any_module_starts_no_thread_opens_no_socket_and_forks_nothing() -> None:
    told = seen("everything")
    assert {"onnxruntime", "openvino", "nicegui"} <= set(told["loaded"])  # they were imported indeed
    assert told["events"] == []
