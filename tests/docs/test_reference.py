"""Everything that has a name is in the documents, and what the documents name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tidemill.cli import tf_words
from tidemill.cli.main import VERBS, tidemill
from tidemill.core import settings
from tidemill.doors.problems import PROBLEMS
from tidemill.observe.metrics import NAMES

from .pages import EVERY, ROOT, WRITTEN, links, prose

TEXT = "\n".join(page.read_text("utf-8") for page in EVERY)
REGISTRY = re.compile(
    r"\b[\w.-]*(?:pypi|pythonhosted|huggingface|anaconda|npmjs|docker|ghcr|quay)\.(?:org|com|co|io)\b", re.I
)
HOME = re.compile(r"(?<![\w.~])/(?:home|Users|root|work)/[\w.]")
OF_OTHERS = {"--no-deps", "--rm", "--health-cmd", "--no-healthcheck"}
"""Of pip and docker."""


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_seen(tmp_path: Path) -> None:
    (tmp_path / "build.py").write_bytes((ROOT / "docs/build.py").read_bytes())
    check = [sys.executable, tmp_path / "build.py", "--check"]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
    subprocess.run(check[:2], capture_output=True, check=True)
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "reference/errors.md").read_bytes() == (ROOT / "docs/reference/errors.md").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        *(f"`{entry.name}`" for entry in settings.table()), *(f"`{code}`" for code in PROBLEMS), *NAMES,
        *(f"tidemill {verb}" for verb in VERBS),
    ],
)  # fmt: skip
def test_what_has_a_name_is_told(name: str) -> None:
    assert name in TEXT


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None
            yield from commands(below, (*path, verb))


def test_no_verb_and_no_flag_is_told_that_is_not_there() -> None:
    known = dict(commands(tidemill))
    flags = {flag for each in known.values() for option in each.params for flag in option.opts} | {
        "--help",
        "--api",
        *(f"--{word}" for word in tf_words.KNOWN),
    }
    for page in WRITTEN:
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            if spoken := re.match(r"tidemill ([a-z]+)", code):
                assert (spoken[1],) in known, f"{page.name}: {code}"
            for flag in re.findall(r"(?<!\S)--[a-z_-]+", code):
                assert flag in flags | OF_OTHERS, f"{page.name}: {code}"


def test_no_code_metric_or_variable_is_told_that_is_not_there() -> None:
    variables = {settings.ENVIRONMENT_PREFIX + word.upper() for word in settings.OTHER_WORDS} | {
        settings.ENVIRONMENT_PREFIX + entry.name.upper() for entry in settings.table()
    }
    families = {code.partition(".")[0] for code in PROBLEMS}
    for page in WRITTEN:
        text = page.read_text("utf-8")
        assert set(re.findall(r"\bTIDEMILL_[A-Z_]+\b", text)) <= variables, page.name
        metrics = {name.removesuffix("_total") for name in re.findall(r"\btidemill_[a-z_]+\b", text)}
        assert metrics <= NAMES.keys(), page.name
        told = re.findall(r"`([a-z]+\.[a-z_]+)`", text)
        assert {code for code in told if code.partition(".")[0] in families} <= PROBLEMS.keys() | {
            "model.onnx",
            "model.xml",
            "model.bin",
            "model.safetensors",
        }, page.name


@pytest.mark.parametrize("page", EVERY, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    lost = [
        to for to in links(page) if not to.startswith("https://") and not (page.parent / to.partition("#")[0]).exists()
    ]
    assert lost == []


def test_every_page_is_led_to() -> None:
    led = {(page.parent / to).resolve() for page in EVERY for to in links(page)}
    assert {page for page in EVERY if page.name != "CHANGELOG.md"} - led == set()


@pytest.mark.parametrize("page", EVERY, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_host_of_a_registry_and_no_home_is_named(page: Path) -> None:
    text = page.read_text("utf-8")
    assert REGISTRY.findall(text) == []
    assert HOME.findall(text) == []


@pytest.mark.parametrize("name", ["console.png", "terminal.svg"])
def test_pictures_are_small_and_hold_no_home(name: str) -> None:
    data = (ROOT / "docs/images" / name).read_bytes()
    assert len(data) < 300_000
    assert HOME.search(data.decode("utf-8", "ignore") if name.endswith("svg") else "") is None
