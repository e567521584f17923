"""The clients of examples/ do against a real service what they say, each where its toolchain is at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from needs import ROOT
from real_words import words
from serving import Server, repository, server, tidemill

__all__ = ["repository", "server", "words"]

EXAMPLES = ROOT / "examples"
HALVES = "[0.5, 1.0]"
RUN_S_MAX = 120
INSTALL_S_MAX = 240
REGISTRY = re.compile(r"\b[\w.-]*(?:pypi|pythonhosted|npmjs|maven|jcenter|docker|ghcr)\.(?:org|com|co|io)\b", re.I)
HOME = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/[\w.]")


def run(command: list[str | Path], server: Server, folder: Path = EXAMPLES, **extra: str) -> list[str]:
    """The lines that it prints."""
    variables = {**os.environ, "TIDEMILL_URL": server.url, "GRPC_ADDRESS": server.told["grpc_address"], **extra}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()


@pytest.mark.parametrize("name", ["rest", "predict_grpc"])
def test_python(server: Server, name: str) -> None:
    said = run([sys.executable, EXAMPLES / "python" / f"{name}.py"], server)
    assert said == [HALVES, HALVES, "404 model.unknown" if name == "rest" else "NOT_FOUND model.unknown"]


def test_python_with_tritons_client(server: Server) -> None:
    assert run([sys.executable, EXAMPLES / "python/triton.py"], server) == [HALVES, HALVES]


def test_curl(server: Server) -> None:
    needs.programs("curl", "bash")
    predicted, inferred = map(json.loads, run([EXAMPLES / "curl/call.sh"], server))
    assert predicted == {"predictions": [0.5, 1.0]}
    assert inferred["outputs"][0]["data"] == [0.5, 1.0]


@pytest.mark.slow
def test_chat_with_openais_client(words: Server) -> None:
    said = run([sys.executable, EXAMPLES / "python/chat.py"], words)
    assert len(said) == 2
    assert said[0] == said[1]
    assert "Paris" in said[0]


@pytest.mark.slow
def test_chat_with_curl(words: Server) -> None:
    needs.programs("curl", "bash")
    *told, done = [line.removeprefix("data: ") for line in run([EXAMPLES / "curl/chat.sh"], words) if line]
    assert done == "[DONE]"
    chunks = [json.loads(each) for each in told]
    assert "Paris" in "".join(each["choices"][0]["delta"].get("content", "") for each in chunks[:-1])
    assert chunks[-1]["usage"]["completion_tokens"] > 3


def test_curl_tells_what_the_service_refused(repository: Path, tmp_path: Path) -> None:
    needs.programs("curl", "bash")
    with Server(repository, tmp_path / "data") as keyed:
        variables = {**os.environ, "TIDEMILL_URL": keyed.url}
        done = subprocess.run(
            [EXAMPLES / "curl/call.sh"], env=variables, capture_output=True, text=True, timeout=RUN_S_MAX, check=False
        )
        assert done.returncode == 22
        assert json.loads(done.stdout)["code"] == "key.missing"
        made = tidemill("keys", "create", "--tenant", "t", "--data-dir", keyed.data_dir, "--json")
        key = json.loads(made.stdout)["key"]
        assert len(run([EXAMPLES / "curl/call.sh"], keyed, TIDEMILL_KEY=key)) == 2
        assert run([sys.executable, EXAMPLES / "python/predict_grpc.py"], keyed, TIDEMILL_KEY=key)[0] == HALVES
        assert run([sys.executable, EXAMPLES / "python/triton.py"], keyed, TIDEMILL_KEY=key) == [HALVES, HALVES]


def test_javascript_over_rest(server: Server) -> None:
    needs.programs("node")
    assert run(["node", EXAMPLES / "javascript/rest.js"], server) == ["[ 0.5, 1 ]", "[ 0.5, 1 ]", "404 model.unknown"]


@pytest.fixture(scope="module")
def javascript() -> Iterator[Path]:
    """A copy of the folder with what it depends on, which npm brings."""
    needs.programs("node", "npm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("javascript", "proto"):
            shutil.copytree(EXAMPLES / part, folder / part, ignore=shutil.ignore_patterns("node_modules"))
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        try:
            done = subprocess.run(
                command, cwd=folder / "javascript", capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            needs.brought(False, f"npm brought nothing within {INSTALL_S_MAX} s")
        needs.brought(not done.returncode, f"npm cannot install what the example needs: {done.stderr.strip()[-300:]}")
        yield folder / "javascript"


@pytest.mark.slow
def test_javascript_over_grpc(server: Server, javascript: Path) -> None:
    said = run(["node", "grpc.js"], server, javascript)
    assert said == ["[ 0.5, 1 ]", "[ 0.5, 1 ]", "NOT_FOUND model.unknown"]


@pytest.mark.slow
def test_java_over_rest(server: Server) -> None:
    needs.programs("java", "javac")
    predicted, inferred, refused = run(["java", EXAMPLES / "java/Rest.java"], server)
    assert predicted == '200 {"predictions":[0.5,1.0]}'
    assert json.loads(inferred.removeprefix("200 "))["outputs"][0]["data"] == [0.5, 1.0]
    assert refused.startswith("404 ")
    assert json.loads(refused.removeprefix("404 "))["code"] == "model.unknown"


@pytest.mark.slow
def test_java_over_grpc(server: Server, tmp_path: Path) -> None:
    """With the packages of Debian, installed, or unpacked in the folder that JAVA_PACKAGES_ROOT names."""
    needs.programs("java", "javac")
    root = needs.java_packages()
    said = run([EXAMPLES / "java/grpc.sh"], server, ROOT=root, BUILD=str(tmp_path))
    assert said == [HALVES, HALVES, "NOT_FOUND model.unknown"]


def test_no_host_of_a_registry_and_no_home_is_named() -> None:
    files = [each for each in EXAMPLES.rglob("*") if each.is_file() and "node_modules" not in each.parts]
    assert len(files) > 10
    for file in files:
        assert REGISTRY.findall(file.read_text()) == [], file
        assert HOME.findall(file.read_text()) == [], file


def test_versions_of_packages_are_pinned() -> None:
    told = json.loads((EXAMPLES / "javascript/package.json").read_text())
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in told["dependencies"].values())
    assert not (EXAMPLES / "javascript/package-lock.json").exists()
