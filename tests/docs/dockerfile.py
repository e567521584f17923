"""Reads a Dockerfile, and carries its steps out in a folder where no engine is: paths of the image lie below a root."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

OURS = ("/opt/tidemill", "/build", "/models", "/var/lib/tidemill")
"""Absolute paths of the image that its steps speak of."""
STEP_S_MAX = 1500


@dataclass
class Step:
    word: str
    rest: str

    @property
    def flags(self) -> dict[str, str]:
        return dict(re.findall(r"--([a-z-]+)=(\S+)", self.rest.split("CMD", maxsplit=1)[0]))

    @property
    def argv(self) -> list[str]:
        """Of the form in JSON, which needs no shell."""
        argv: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return argv


@dataclass
class Stage:
    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def of(self, word: str) -> list[Step]:
        return [step for step in self.steps if step.word == word]


def read(path: Path) -> list[Stage]:
    """The stages in their order; what stands before the first FROM must be ARG, and is put in."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in path.read_text().splitlines() if line[:1] != "#"))
    stages: list[Stage] = []
    given: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            given[name] = value
        elif word == "FROM":
            for name, value in given.items():
                rest = rest.replace(f"${{{name}}}", value)
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].steps.append(Step(word, rest.strip()))
    return stages


class Image:
    """The file system of every stage at once, below `root`: no two stages here write to one place."""

    def __init__(self, root: Path, context: Path) -> None:
        self.root = root
        self.context = context
        self.folder = root
        self.env: dict[str, str] = {}

    def inside(self, text: str) -> str:
        for path in OURS:
            text = re.sub(rf"(?<![\w/.]){re.escape(path)}(?![\w-])", f"{self.root}{path}", text)
        return text

    def run(self, stage: Stage, pip: bool) -> None:
        """The steps of `stage`; without `pip` those that would install find this process's environment instead."""
        for step in stage.steps:
            if step.word == "WORKDIR":
                self.folder = Path(self.inside(step.rest))
                self.folder.mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY" and "from" not in step.flags:
                self._copy(shlex.split(step.rest))
            elif step.word == "ENV":
                self.env |= {name: self.inside(value) for name, value in re.findall(r"(\w+)=(\S+)", step.rest)}
            elif step.word == "RUN" and not step.rest.startswith("useradd "):  # a user of this machine: not for a test
                self._shell(step.rest, pip)

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        for source in sources:
            found, place = self.context / source, self.folder / target
            if found.is_dir():
                shutil.copytree(found, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(found, place if target not in (".", "./") else place / source)

    def _shell(self, command: str, pip: bool) -> None:
        if not pip and " -m venv " in command:
            (self.root / "opt").mkdir()
            (self.root / "opt/tidemill").symlink_to(sys.prefix)
            self.env["PYTHONPATH"] = str(self.context / "src")
            return
        if not pip and " pip install " in command:
            return
        Path(self.inside("/models")).mkdir(exist_ok=True)
        subprocess.run(
            ["sh", "-euc", self.inside(command).replace("python -m venv", f"{sys.executable} -m venv")],
            cwd=self.folder,
            check=True,
            timeout=STEP_S_MAX,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "PYTHON"))}
        here = {name: value.replace("$PATH", os.environ["PATH"]) for name, value in self.env.items()}
        return kept | here | {"PIP_QUIET": "1"}  # where it installs from is no part of what `make soak` keeps
