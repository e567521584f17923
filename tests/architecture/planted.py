"""A copy of the house in which an import can be planted, and what import-linter says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHECK_S_MAX = 60


def declared() -> list[dict[str, Any]]:
    """The contracts of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def folders() -> set[str]:
    """The crafts: folders and modules right under `tidemill`."""
    house = ROOT / "src/tidemill"
    crafts = {each.name for each in house.iterdir() if (each / "__init__.py").is_file()}
    return crafts | {each.stem for each in house.glob("*.py") if not each.stem.startswith("__")}


@dataclass(frozen=True, slots=True)
class Verdict:
    code: int
    broken: frozenset[str]
    """Names of contracts."""
    kept: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class House:
    """A copy of `src` and `pyproject.toml` in a folder of its own."""

    folder: Path

    @classmethod
    def copied(cls, folder: Path) -> House:
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        return cls(folder)

    def plant(self, module: str, line: str) -> None:
        """Write `line` after the last line of `module`, a path under `src/tidemill`; a new one is made."""
        file = self.folder / "src/tidemill" / module
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as text:
            text.write(f"\n\n{line}\n")

    def judged(self) -> Verdict:
        """By import-linter, over all contracts, without what it remembers of other runs."""
        program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        ran = subprocess.run(
            [sys.executable, "-c", program, "--no-cache", "--no-logo"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "src"), "COLUMNS": "200", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=CHECK_S_MAX,
        )
        told = re.findall(r"^(.+?) (KEPT|BROKEN)\b", ran.stdout, re.MULTILINE)
        named = {verdict: frozenset(name for name, said in told if said == verdict) for verdict in ("KEPT", "BROKEN")}
        return Verdict(ran.returncode, named["BROKEN"], named["KEPT"], ran.stdout + ran.stderr)
