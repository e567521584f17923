"""`tidemill compress` as scripts meet it: clean stdout, words on stderr, stable exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import small_nets
from serving import tidemill

DONE, FAILED, MISUSE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_nets.save_net(tmp_path / "models")
    return tmp_path


def compress(folder: Path, *words: str | Path) -> CompletedProcess[str]:
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    given = ("--models", folder / "models", "--work", folder / "work", "--workers", "1", "--no-measure")
    return tidemill("compress", *words, *given, cwd=folder, PYTHONPATH=path)


@pytest.mark.slow
def test_a_method_publishes_a_model_that_try_asks_and_ls_lists(folder: Path) -> None:
    ran = compress(folder, "net", "--method", "gptq", "--data", "fit.npz", "-o", "small", "--keep", "0.5", "--json")
    assert ran.returncode == DONE, ran.stderr
    (told,) = json.loads(ran.stdout)
    assert (told["name"], told["version"], told["metric"]) == ("small", 1, "accuracy")
    assert told["size_ratio"] < 0.6
    assert Path(told["report"]).read_text().startswith("<!doctype html>")
    assert "gptq" in ran.stderr
    listed = json.loads(tidemill("ls", "--models", folder / "models", "--json").stdout)
    assert [(row["name"], row["source"]) for row in listed] == [("net", ""), ("small", "net@1 by gptq")]
    assert tidemill("try", "small", "--models", folder / "models").returncode == DONE
    again = compress(folder, "net", "--method", "gptq", "--data", "fit.npz", "-o", "small")
    assert again.returncode == DONE
    assert "serve it: tidemill serve small --models" in again.stdout
    assert (folder / "models/small/2/model.onnx").is_file()


@pytest.mark.slow
def test_what_a_reader_of_the_table_would_miss_is_told(folder: Path) -> None:
    ran = compress(folder, "net", "--method", "laplace", "--rows", "10", "--data", "fit.npz", "-o", "small")
    assert ran.returncode == DONE, ran.stderr
    assert "small: 2 of 2 layers learned from too few rows; first: 10 rows give H rank 9 of 24" in ran.stderr
    assert "zeros are kept as zeros" in ran.stderr
    assert "zeros" not in ran.stdout


@pytest.mark.slow
def test_a_recipe_is_carried_out(folder: Path) -> None:
    (folder / "r.yaml").write_text("model: net\ndata: fit.npz\nsteps:\n  - method: gptq\n    match: [second]\n")
    ran = compress(folder, "--recipe", "r.yaml", "-o", "small", "--json")
    assert ran.returncode == DONE, ran.stderr
    told = json.loads((folder / "models/small/1/report/report.json").read_text())
    assert [layer["name"] for layer in told["layers"]] == ["second"]


@pytest.mark.slow
def test_what_keeps_too_little_exits_with_3_and_publishes_nothing(folder: Path) -> None:
    words = (
        "net",
        "--method",
        "gptq",
        "-O",
        "bits=2",
        "--data",
        "fit.npz",
        "-o",
        "small",
        "--keep",
        "1",
        "--no-rollback",
    )
    ran = compress(folder, *words)
    assert (ran.returncode, ran.stdout) == (REFUSED, "")
    assert "asked were 1.0" in ran.stderr
    assert not (folder / "models/small").exists()


@pytest.mark.slow
def test_an_interruption_says_that_the_same_command_goes_on(folder: Path) -> None:
    (folder / "interrupting.py").write_text("def rows():\n    raise KeyboardInterrupt\n")
    ran = compress(folder, "net", "--method", "gptq", "--data", "interrupting:rows", "-o", "small")
    assert ran.returncode == INTERRUPTED
    assert "the same command" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("net", "-o", "x"), "exactly one of --method and --recipe"),
        (("net", "-o", "x", "--method", "gptq", "--recipe", "r.yaml"), "exactly one of --method and --recipe"),
        (("net", "-o", "x", "--recipe", "r.yaml", "-O", "bits=4"), "-O go with --method"),
        (("net", "-o", "x", "--recipe", "none.yaml"), "none.yaml"),
        (("net", "-o", "x", "--recipe", "r.yaml", "--data", "fit.npz"), "did you mean 'method'"),
        (("net", "--method", "gptq", "--data", "fit.npz"), "--output"),
        (("net", "-o", "x", "--method", "gptk", "--data", "fit.npz"), "did you mean 'gptq'"),
        (("net", "-o", "x", "--method", "gptq"), "--data"),
        (("-o", "x", "--method", "gptq", "--data", "fit.npz"), "model is missing"),
        (("net", "-o", "x", "--method", "gptq", "--data", "fit.npz", "--keep", "2"), "keep is 2.0"),
        (("net", "-o", "x", "--method", "gptq", "--data", "fit.npz", "-O", "bitz=4"), "did you mean 'bits'"),
        (("net", "-o", "x", "--method", "gptq", "--data", "fit.npz", "--metric", "acuracy"), "did you mean 'accuracy'"),
        (("net", "-o", "x", "--method", "gptq", "--data", "fit.npz", "--match", "third"), "first, second"),
        (("net", "-o", "x", "--method", "zero-one", "--data", "fit.npz", "--form", "classic"), "-O form=classic"),
        (("net", "-o", "x", "--method", "zero-one", "--data", "fit.npz", "--form=classic"), "-O form=classic"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else None,
)
def test_misuse_is_told(folder: Path, words: tuple[str, ...], told: str) -> None:
    (folder / "r.yaml").write_text("steps: [{metod: gptq}]")
    ran = compress(folder, *words)
    assert (ran.returncode, ran.stdout) == (MISUSE, ""), ran.stderr
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("other", "-o", "x", "--method", "gptq", "--data", "fit.npz"), "model.unknown"),
        (("magika", "-o", "x", "--method", "gptq", "--data", "fit.npz"), "demo --fetch-only"),
        (("net", "-o", "x", "--method", "gptq", "--data", "nowhere.npz"), "compress.data"),
        (("net", "-o", "net", "--method", "gptq", "--data", "fit.npz"), "--force"),
    ],
    ids=str,
)
def test_what_is_not_there_is_a_failure(folder: Path, words: tuple[str, ...], told: str) -> None:
    ran = compress(folder, *words)
    assert (ran.returncode, ran.stdout) == (FAILED, ""), ran.stderr
    assert told in ran.stderr
