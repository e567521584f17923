"""What must not stand in the source: hosts of registries, home directories, pickle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = sorted((ROOT / "src").rglob("*.py"))
TEXTS = sorted(
    path
    for folder in ("src", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".css", ".svg", ".proto", ".toml", ".sql", ".json", ".txt"}
)
REGISTRY = re.compile(
    r"\b[\w.-]*(?:pypi|pythonhosted|huggingface|hf|anaconda|conda|npmjs|docker|ghcr|quay)\.(?:org|com|co|io)\b", re.I
)
HOME = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/[\w.]|\b[A-Z]:\\Users\\")
UNSAFE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def breaches(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in TEXTS
        for found in pattern.finditer(path.read_text("utf-8"))
    ]


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Whatever in `tree` reads or writes pickles."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in UNSAFE:
                yield node.module or ""
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield "allow_pickle"
        elif isinstance(node, ast.Constant) and node.value in UNSAFE:
            yield str(node.value)


def test_no_host_of_a_registry_is_named() -> None:
    assert breaches(REGISTRY) == []


def test_no_home_directory_is_named() -> None:
    assert breaches(HOME) == []


def test_nothing_is_pickled() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {what}" for path in PYTHON for what in unsafe(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from dill import loads", "import joblib.x", "numpy.load(f, allow_pickle=True)",
     "numpy.load(f, allow_pickle=yes)", "import_module('cloudpickle')"],
)  # fmt: skip
def test_a_pickle_is_seen(line: str) -> None:
    assert list(unsafe(ast.parse(line)))


@pytest.mark.parametrize("host", ["files.pythonhosted", "pypi", "test.pypi", "cdn-lfs.huggingface"])
def test_a_host_is_seen(host: str) -> None:
    assert REGISTRY.search(f"https://{host}.org/simple/")


@pytest.mark.parametrize(
    "path", ["/home/me/x", "'" + "/".join(("", "root", ".cache")) + "'", "/Users/me", "C:\\Users\\me"]
)
def test_a_home_is_seen(path: str) -> None:
    assert HOME.search(path)
