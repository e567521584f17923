"""The scripts that complete words, and what the first word costs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from serving import environment, tidemill
from tidemill.cli.main import VERBS

PROGRAM = Path(sys.executable).with_name("tidemill")


def completed(*words: str) -> list[str]:
    """What bash offers after these words, by the script itself."""
    script = tidemill("completion", "bash").stdout
    line = " ".join(f"'{word}'" for word in ("tidemill", *words))
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _tidemill_completion '{PROGRAM}'"
    program = f"{script}\n{ask}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    ran = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    return ran.stdout.split()


def test_bash_completes_verbs_flags_and_words() -> None:
    assert set(completed("")) == set(VERBS)
    assert completed("ser") == ["serve"]
    assert completed("serve", "--http-p") == ["--http-port"]
    assert completed("serve", "--log-level", "w") == ["warning"]
    assert set(completed("keys", "")) == {"create", "ls", "revoke"}
    assert completed("completion", "f") == ["fish"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_asks_the_command(shell: str) -> None:
    ran = tidemill("completion", shell)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"_TIDEMILL_COMPLETE={shell}_complete" in ran.stdout


def test_another_shell_is_misuse() -> None:
    ran = tidemill("completion", "tcsh")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "'bash', 'zsh', 'fish'" in ran.stderr


def cpu_s(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=environment(), timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_help_costs_little_more_than_the_library_that_prints_it() -> None:
    """CPU time, as a ratio, of the best of several turns: a slow machine is slow at both, though not for long. Where
    the ratio is 4, help takes .2 s of a usual core."""
    turns = [cpu_s("-m", "tidemill", "--help") / cpu_s("-c", "import click") for _ in range(7)]
    assert min(turns) < 5, turns


TABLES = [verb for verb in VERBS if verb not in {"demo", "completion", "keys"}]


@pytest.mark.parametrize("verb", TABLES)
def test_every_verb_that_tells_something_tells_it_as_json(verb: str) -> None:
    assert "--json" in tidemill(verb, "--help").stdout


@pytest.mark.parametrize("verb", ["create", "ls", "revoke"])
def test_so_do_the_verbs_of_keys(verb: str) -> None:
    assert "--json" in tidemill("keys", verb, "--help").stdout
