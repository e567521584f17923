"""The console as a process: how it begins and ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fakes_admin import FakeAdmin, free_port
from tidemill.assemble.console_process import ConsoleProcess
from tidemill.console import __main__ as entry
from tidemill.console.parent import _poll, wait_for_end
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings

from .conftest import StartConsole, answers, environment


@pytest.mark.parametrize("arguments", [["--api", "service"], ["--api", "ftp://h"], ["--port", "0"], ["--port", "x"]])
def test_misuse_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        entry.arguments(arguments)
    assert left.value.code == 2
    assert repr(arguments[1]) in capsys.readouterr().err


@pytest.mark.parametrize("wait", [wait_for_end, _poll])
def test_a_process_that_is_not_there_has_ended(wait: object) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    wait(ended.pid)  # type: ignore[operator]


@pytest.mark.slow
def test_sigterm_ends_it_at_once_and_quietly_and_it_leaves_nothing(
    start: StartConsole, api: str, tmp_path: Path
) -> None:
    process, url = start(api)
    assert "Tidemill" in answers(url)
    assert "Tidemill" in answers(url + "/console")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=5)[0] == b""
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_parent_ends_it(admin: FakeAdmin, tmp_path: Path) -> None:
    """Goal: no orphan. Method: the console holds the pipe that its killed parent leaves behind, until it ends too."""
    port = free_port()
    program = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-m', 'tidemill.console', "
        f"'--port', '{port}', '--parent', str(os.getpid())])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    )  # fmt: skip
    answers(f"http://127.0.0.1:{port}")
    parent.kill()
    assert parent.communicate(timeout=5)[0] == b""


def test_a_port_that_is_taken_is_told_before_any_model_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=rf":{port} cannot be listened on.*--no-console"):
            ConsoleProcess(Settings(console_port=port))
        assert ConsoleProcess(Settings(console_port=port, no_console=True)).port == 0
