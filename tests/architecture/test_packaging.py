"""What the wheel holds, and what the declarations promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")
BUILD_S_MAX = 120
EXPORT = "constraints-llm-export.txt"
"""Of the environment that exports language models."""


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The names of what is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    quiet = {**os.environ, "PYTHONWARNINGS": "default"}
    subprocess.run(command, cwd=ROOT, env=quiet, check=True, capture_output=True, timeout=BUILD_S_MAX)
    (built,) = folder.glob("*.whl")
    return frozenset(zipfile.ZipFile(built).namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel: frozenset[str]) -> None:
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "tidemill").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= wheel, wanted - wheel
    assert {".binpb", ".css", ".svg", ".proto"} <= {Path(name).suffix for name in wanted}


def test_the_wheel_holds_nothing_else_but_its_licence_and_entry_points(wheel: frozenset[str]) -> None:
    others = {name.partition("/")[2] for name in wheel if not name.startswith("tidemill/")}
    assert others == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


VLLM = "tests/peers/vllm.txt"
"""vLLM asks for versions that others cannot bear: it is pinned apart, in its build for machines without a GPU."""
PEERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks/peers").glob("requirements*.txt"))


@pytest.mark.parametrize("name", ["constraints.txt", EXPORT, "tests/peers/tensorflow.txt", VLLM, *PEERS])
def test_each_line_pins_one_package_and_names_no_place(name: str) -> None:
    pins = [canonical(line.partition("==")[0]) + line[line.index("==") :] for line in lines(name) if "==" in line]
    assert len(pins) == len(lines(name))
    assert [pin for pin in pins if not PINNED.fullmatch(pin)] == []
    named = [pin.partition("==")[0] for pin in pins]
    assert len(named) == len(set(named))


def test_what_is_declared_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    declared = {canonical(re.split(r"[\[<>=! ]", each)[0]) for each in project["dependencies"] + extras} - {"tidemill"}
    pinned = {canonical(line.partition("==")[0]) for line in lines("constraints.txt") + lines(EXPORT)}
    pinned |= {canonical(line.partition("==")[0]).removesuffix("-cpu") for line in lines(VLLM) if "vllm" in line}
    assert declared <= pinned, declared - pinned


def test_what_is_installed_is_pinned() -> None:
    """Goal: no test passes on a version that nobody else gets. Method: this environment against the pins."""
    pins = {
        canonical(name): version for name, _, version in (line.partition("==") for line in lines("constraints.txt"))
    }
    tools = {"pip", "setuptools", "wheel", "tidemill"}
    installed = {canonical(each.name): each.version.partition("+")[0] for each in distributions()}
    other = {name: version for name, version in installed.items() if name not in tools and pins.get(name) != version}
    assert other == {}
