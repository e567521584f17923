"""Run by tests in a Python of its own: imports what it is told, and prints as JSON what that loaded and set going.

`imports_seen.py everything` imports every module of tidemill; `imports_seen.py command WORD ...` runs the command.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import threading
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec

# Not subprocess.Popen: on Linux, ctypes asks `ldconfig` where a library lies, when NiceGUI is imported.
WATCHED = {"socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo", "os.fork"}


ELSEWHERE = {
    "tidemill.engine.tensorflow",
    *(f"tidemill.engine.on_vllm.{each}" for each in ("child", "engine", "sampling")),
}
"""What needs a library that lives in an environment of its own."""
YOUNG = {"tidemill.doors.grpc_native": "pygrpc_native"}
"""What needs a library that not everybody installs."""


class Watch:
    """What was set going, and while which module was imported."""

    def __init__(self) -> None:
        self.doing = "start"
        self.events: list[str] = []
        sys.addaudithook(lambda event, _: self.saw(event) if event in WATCHED else None)
        start = threading.Thread.start  # no audit event tells of threads before Python 3.12

        def watched(thread: threading.Thread) -> None:
            self.saw("thread")
            start(thread)

        threading.Thread.start = watched  # type: ignore[method-assign]

    def saw(self, event: str) -> None:
        self.events.append(f"{self.doing}: {event}")


def everything(watch: Watch) -> None:
    with suppress(ImportError):  # binds to ::1 as it is imported, to see whether there is IPv6; the exporter of traces
        importlib.import_module("urllib3.util.connection")  # brings it, and others take it where it is
    watch.events.clear()

    import tidemill

    for module in pkgutil.walk_packages(tidemill.__path__, "tidemill."):
        watch.doing = module.name
        if module.name in ELSEWHERE or (module.name in YOUNG and find_spec(YOUNG[module.name]) is None):
            continue
        importlib.import_module(module.name)


def command(words: list[str]) -> int:
    from tidemill.cli import main

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        return main.run(words)


def main(words: list[str]) -> None:
    watch = Watch()
    code = command(words[1:]) if words[0] == "command" else everything(watch)
    loaded = sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})
    json.dump({"code": code, "loaded": loaded, "events": watch.events}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
