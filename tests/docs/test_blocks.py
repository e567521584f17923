"""What the documents tell to paste does what they say."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

import needs
from tidemill.cli import tf_words
from tidemill.cli.main import tidemill
from tidemill.compress import recipe
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.console.__main__ import arguments as console_arguments
from tidemill.core import settings
from tidemill.core.package import ModelConfig
from tidemill.kit.install import install

from .conftest import Reader
from .pages import README, ROOT, WRITTEN, Block, blocks

TIMEOUT_S = 60
STAYS = re.compile(
    r"^(?:make|pip|tensorflow_model_server|tidemill (?:serve|demo|compress|compile)|\.venv/bin/python"
    r"|python3? -m (?:venv|tidemill\.console))\b"
)
"""Lines that start a service or change an environment: they are read, not run."""
ALL = [block for page in WRITTEN for block in blocks(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def stays(block: Block) -> bool:
    return block.language == "bash" and any(STAYS.match(line) for line in block.text.splitlines())


def named(block: Block) -> str:
    return block.where


@pytest.mark.slow
@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_blocks_of_a_page_run_in_their_order(page: Path, reader: Reader, tmp_path: Path) -> None:
    shutil.copy(README, tmp_path)
    for block in blocks(page):
        if block.language == "bash" and block.kind != "remote" and not stays(block):
            script = f"set -euo pipefail\n{reader.addressed(block.text)}"
            check(block, ["bash", "-c", script], reader, tmp_path)
        elif block.language == "python" and block.kind != "tensorflow":
            check(block, [sys.executable, "-c", reader.addressed(block.text)], reader, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("block", [each for each in of("python") if each.kind == "tensorflow"], ids=named)
def test_tensorflows_own_client_runs_as_it_is_written(block: Block, reader: Reader, tmp_path: Path) -> None:
    python = needs.tensorflow_python()
    variables = {name: value for name, value in reader.variables.items() if name != "PYTHONPATH"}
    check(block, [str(python), "-c", reader.addressed(block.text)], reader, tmp_path, variables)


def check(
    block: Block, command: list[str], reader: Reader, folder: Path, variables: dict[str, str] | None = None
) -> None:
    done = subprocess.run(
        command, cwd=folder, env=variables or dict(reader.variables), capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.where}: {done.stdout}{done.stderr}"
    said = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    if block.answer is None:
        assert '"error"' not in said, f"{block.where}: {said}"
    else:
        assert matches(block.answer.strip(), said), f"{block.where}: expected\n{block.answer}\ngot\n{said}"


def matches(expected: str, said: str) -> bool:
    """`...` stands for anything."""
    return re.fullmatch(".*?".join(re.escape(part) for part in expected.split("...")), said, re.S) is not None


@pytest.mark.parametrize(("expected", "said"), [("a ... c", "a b c"), ("x", "x")])
def test_an_answer_that_fits(expected: str, said: str) -> None:
    assert matches(expected, said)


@pytest.mark.parametrize(("expected", "said"), [("a ... c", "a b d"), ("x", "xy"), (".", "x")])
def test_an_answer_that_does_not_fit(expected: str, said: str) -> None:
    assert not matches(expected, said)


@pytest.mark.parametrize("block", of("bash"), ids=named)
def test_shell_can_be_read(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [each for each in of("bash") if stays(each)], ids=named)
def test_what_is_not_run_names_what_there_is(block: Block) -> None:
    for line in block.text.splitlines():
        match shlex.split(line, comments=True):
            case ["make", *targets]:
                assert set(targets) <= make_targets(), line
            case ["pip", "install", *what] | [".venv/bin/python", "-m", "pip", "install", *what]:
                assert extras(what) <= set(known_extras()), line
            case ["tidemill" | ".venvs/llm-export/bin/tidemill", verb, *words]:
                taken(verb, words)
            case ["tensorflow_model_server", *words]:
                read = tf_words.read(words)
                assert read.models or read.flags["model_config_file"]
            case ["python", "-m", "tidemill.console", *words]:
                assert console_arguments(words)
            case ["python3", "-m", "venv", ".venv"] | []:
                pass
            case other:
                pytest.fail(f"{block.where}: who reads {other}?")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


def extras(what: list[str]) -> set[str]:
    return {extra for word in what for group in re.findall(r"\[(.*)\]", word) for extra in group.split(",")}


def known_extras() -> dict[str, list[str]]:
    told: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    return told


def taken(verb: str, words: list[str]) -> click.Context:
    """As click takes these words; nothing is run."""
    command = tidemill.get_command(click.Context(tidemill), verb)  # type: ignore[attr-defined]
    assert command is not None, f"there is no verb {verb}"
    return command.make_context(verb, list(words))


def compressions_that_match() -> list[list[str]]:
    """The words of `tidemill compress` in the documents wherever layers are named."""
    lines = [line for block in of("bash") for line in block.text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("tidemill compress ")]
    return [each[2:] for each in words if "--match" in each]


@pytest.mark.parametrize("block", of("toml"), ids=named)
def test_a_file_of_settings_would_be_taken(block: Block) -> None:
    values = tomllib.loads(block.text)
    if block.kind == "model":
        assert msgspec.convert(values, ModelConfig)
    else:
        assert settings.resolve({}, {}, values)


@pytest.mark.parametrize("block", of("yaml"), ids=named)
def test_a_recipe_would_be_taken(block: Block) -> None:
    assert recipe.check(recipe.parse(block.text))


@pytest.mark.parametrize("block", of("ini"), ids=named)
def test_the_unit_starts_what_there_is(block: Block) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    program, verb, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "tidemill"
    taken(verb, words)


@pytest.fixture(scope="module")
def layers_of_minilm(tmp_path_factory: pytest.TempPathFactory) -> list[Layer]:
    into = tmp_path_factory.mktemp("models")
    install(["minilm"], into)
    return Graph.read(into / "minilm/1/model.onnx").layers()


@pytest.mark.parametrize("block", of("yaml"), ids=named)
def test_the_steps_of_a_recipe_meet_layers_of_its_model(block: Block, layers_of_minilm: list[Layer]) -> None:
    asked = recipe.parse(block.text)
    assert asked.model == "minilm"
    for step in recipe.check(asked):
        assert recipe.chosen(step, layers_of_minilm)


@pytest.mark.parametrize("words", compressions_that_match(), ids=" ".join)
def test_what_a_command_matches_are_layers_of_its_model(words: list[str], layers_of_minilm: list[Layer]) -> None:
    given = taken("compress", words).params
    assert given["model"] == "minilm"
    asked = recipe.of_method(given["method"], given["options"], given["match"], model="minilm", data=given["data"])
    for step in recipe.check(asked):
        assert recipe.chosen(step, layers_of_minilm)


def test_every_block_says_what_it_is() -> None:
    kinds = {
        "bash": {"", "remote"},
        "python": {"", "tensorflow"},
        "toml": {"model", "settings"},
        "text": {""},
        "ini": {""},
        "yaml": {"recipe"},
    }
    strange = [block.where for block in ALL if block.kind not in kinds.get(block.language, ())]
    assert strange == []


def test_json_in_a_shell_line_is_json() -> None:
    for block in of("bash"):
        for body in re.findall(r"-d '(\{.*?\})'", block.text):
            assert json.loads(body), block.where
