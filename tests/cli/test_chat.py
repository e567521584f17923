"""`tidemill chat` as people and scripts meet it: a real server, a real terminal, a small true model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from fakes import KEY
from serving import Server, environment, eventually, tidemill
from speaking import SpeakingServer, speaking
from tidemill.core.generation import Generate

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130
WAIT_S_MAX = 30.0
TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
)
"""Makes the terminal on stdin that of its session, so that Ctrl-C is a signal, and becomes the program."""


def echoing(work: Generate) -> str:
    """Tells what it was given, so that a test sees the conversation."""
    return "|".join(f"{each['role']}: {each['content']}" for each in work.messages)


@pytest.fixture(scope="module")
def mill() -> Iterator[SpeakingServer]:
    with SpeakingServer(speaking(says=echoing)) as running:
        yield running


class Flow:
    """Lets so many tokens of an answer through, and then none; in the place of `FakeGenerator.held`."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens

    async def wait(self) -> None:
        if self._left:
            self._left -= 1
            return
        await asyncio.Event().wait()


class Chat:
    """`tidemill chat` at a terminal of its own. Life: a context manager; `said` is all that it showed."""

    def __init__(self, *words: str | Path, **extra: str) -> None:
        command = [sys.executable, "-c", TERMINAL, sys.executable, "-m", "tidemill", "chat", *map(str, words)]
        self._terminal, theirs = os.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=environment(TERM="xterm", **extra),
        )  # fmt: skip
        os.close(theirs)
        self.said = ""
        self._seen = 0

    def until(self, words: str) -> str:
        """What was shown since the last time, up to `words`."""
        ends = time.monotonic() + WAIT_S_MAX
        while (at := self.said.find(words, self._seen)) < 0:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"no {words!r} in {self.said[self._seen :]!r}"
            self.said += os.read(self._terminal, 65536).decode("utf-8", "replace")
        told = self.said[self._seen : at]
        self._seen = at + len(words)
        return told

    def write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def ended(self) -> int:
        return self.process.wait(WAIT_S_MAX)

    def ends_with(self, key: str) -> int:
        """The exit code after `key` at the prompt. One that comes before the line's editor listens is lost, as it would
        be for a person, so it is pressed again."""
        for _ in range(int(WAIT_S_MAX)):
            self.write(key)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(1)
        return self.ended()

    def __enter__(self) -> Chat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)


def at(mill: SpeakingServer) -> tuple[str, ...]:
    return ("mill", "--url", mill.url)


def piped(words: tuple[str, ...], lines: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidemill", "chat", *words], input=lines, capture_output=True, text=True, check=False,
        timeout=WAIT_S_MAX, env=environment(**{"TIDEMILL_KEY": KEY, **extra}),
    )  # fmt: skip


def test_lines_of_a_pipe_are_one_conversation_and_answers_alone_are_on_stdout(mill: SpeakingServer) -> None:
    ran = piped((*at(mill), "--system", "be brief"), "one\n\n  two  \n/clear\nthree\n/exit\nfour\n")
    assert ran.returncode == DONE, ran.stderr
    first = "system: be brief|user: one"
    assert ran.stdout.splitlines() == [
        first, f"{first}|assistant: {first}|user: two", "system: be brief|user: three",
    ]  # fmt: skip
    assert len(re.findall(r"\d+ tokens in, \d+ out · [\d.e+]+ tokens/s · first after \d+\.\d\d s", ran.stderr)) == 3


def test_json_tells_tokens_and_speed_a_line_each(mill: SpeakingServer) -> None:
    ran = piped((*at(mill), "--json"), "größte 🌊\nand\n")
    assert (ran.returncode, ran.stderr) == (DONE, "")
    one, two = map(json.loads, ran.stdout.splitlines())
    assert one["answer"] == "user: größte 🌊"
    assert one["question"] == "größte 🌊"
    assert one["completion_tokens"] == len(one["answer"].encode()) + 1
    assert 0 < one["first_token_s"] <= one["seconds"]
    assert one["tokens_per_second"] > 0
    assert one["finish_reason"] == "stop"
    assert one["price_nanos"] is None, "this server has no admin API to tell prices"
    assert two["prompt_tokens"] > one["prompt_tokens"]


def test_options_reach_the_model(mill: SpeakingServer) -> None:
    ran = piped((*at(mill), "--temperature", "0", "--max-tokens", "7", "--json"), "hello\n")
    assert json.loads(ran.stdout)["finish_reason"] == "length"
    asked: Any = mill.generator.asked[-1]
    assert (asked.sampling.temperature, asked.sampling.max_tokens) == (0.0, 7)
    piped(at(mill), "hello\n")
    asked = mill.generator.asked[-1]
    assert (asked.sampling.temperature, asked.sampling.max_tokens) == (1.0, 0)


def test_ctrl_c_stops_the_answer_and_not_the_chat_and_the_server_is_free_at_once(mill: SpeakingServer) -> None:
    with Chat(*at(mill), TIDEMILL_KEY=KEY) as chat:
        chat.until("> ")
        mill.generator.held = Flow(12)  # type: ignore[assignment]
        chat.write("tell me\n")
        chat.until("user: tell")
        assert mill.generator.running == 1
        chat.write("\x03")
        chat.until("the chat goes on")
        eventually(lambda: mill.generator.running == 0, "the answer to be given up")
        mill.generator.held = None
        chat.write("and now\n")
        told = chat.until("tokens in")
        assert "user: tell me|assistant: user: tell" in told
        assert re.search(r"\|user: and now\s+\S*\d+ $", told)
        chat.until("> ")
        assert chat.ends_with("\x03") == INTERRUPTED
    assert "Traceback" not in chat.said


def test_ctrl_c_before_the_first_word_leaves_nothing_of_the_question(mill: SpeakingServer) -> None:
    with Chat(*at(mill), TIDEMILL_KEY=KEY) as chat:
        chat.until("> ")
        mill.generator.held = Flow(0)  # type: ignore[assignment]
        chat.write("wait\n")
        eventually(lambda: mill.generator.running == 1, "the answer to begin")
        chat.write("\x03")
        chat.until("the chat goes on")
        eventually(lambda: mill.generator.running == 0, "the answer to be given up")
        mill.generator.held = None
        chat.write("next\n")
        assert "wait" not in chat.until("tokens in").replace("wait\r\n", "")
        chat.write("/exit\n")
        assert chat.ended() == DONE


def test_words_that_begin_with_a_slash_are_commands_and_ctrl_d_ends(mill: SpeakingServer) -> None:
    with Chat(*at(mill), TIDEMILL_KEY=KEY) as chat:
        chat.write("one\n")
        chat.until("tokens in")
        chat.write("/clera\n")
        chat.until("there is no /clera")
        chat.write("/clear\n")
        chat.until("forgotten")
        chat.write("/etc/hosts?\n")
        assert "one" not in chat.until("tokens in")
        chat.until("> ")
        assert chat.ends_with("\x04") == DONE
    assert "user: /etc/hosts?" in chat.said


def test_a_model_cannot_steer_the_terminal(mill: SpeakingServer) -> None:
    with SpeakingServer(speaking(says=lambda work: "a\x1b]0;title\x07b\x9b31mc")) as hostile:
        with Chat(*at(hostile), TIDEMILL_KEY=KEY) as chat:
            chat.write("hello\n")
            chat.until("tokens in")
        assert "a\ufffd]0;title\ufffdb\ufffd31mc" in chat.said
        assert piped(at(hostile), "hello\n").stdout == "a\x1b]0;title\x07b\x9b31mc\n", "a pipe gets it as it is"


def test_a_refusal_is_told_in_the_servers_words_and_ends_a_pipe(mill: SpeakingServer) -> None:
    ran = piped(at(mill), "x" * 5000 + "\nnever asked\n")
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert "answered 400" in ran.stderr
    assert "exceed 4096" in ran.stderr or "tokens of prompt" in ran.stderr
    with Chat(*at(mill), TIDEMILL_KEY=KEY) as chat:
        mill.generator.breaks_after = 8
        chat.write("hello\n")
        chat.until("the engine broke in the middle of an answer")
        mill.generator.breaks_after = None
        chat.write("again\n")
        assert "user: again" in chat.until("tokens in"), "what failed is forgotten, and the chat goes on"
        assert "hello|" not in chat.said


@pytest.mark.parametrize(
    ("words", "key", "code", "said"),
    [
        (("nobody",), KEY, FAILED, "does not list 'nobody'; it lists mill"),
        (("mill",), "tm_wrong", FAILED, "there is no such key"),
        (("mill", "--threads", "2"), KEY, MISUSE, "--threads is for a service that chat starts"),
        (("mill", "--temperature", "nan"), KEY, MISUSE, "--temperature"),
        (("mill", "--max-tokens", "0"), KEY, MISUSE, "--max-tokens"),
    ],
)
def test_what_cannot_be_is_told(mill: SpeakingServer, words: tuple[str, ...], key: str, code: int, said: str) -> None:
    ran = piped((words[0], "--url", mill.url, *words[1:]), "hello\n", TIDEMILL_KEY=key)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://127.0.0.1", "", "http://[::"])
def test_a_server_that_is_not_there_is_told(url: str) -> None:
    ran = piped(("mill", "--url", url), "hello\n")
    assert ran.returncode == (FAILED if url.endswith(":9") else MISUSE)
    assert "url" in ran.stderr or "nothing listens" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_model_that_does_not_speak_is_refused_by_a_service_of_its_own_that_ends(repository: Path) -> None:
    ran = piped(("half", "--models", str(repository)), "hello\n", TIDEMILL_KEY="")
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert "'half' is no language model" in ran.stderr
    assert "starting a service for half version 1" in ran.stderr


def test_a_model_that_is_not_there_is_refused_before_a_service_is_started(repository: Path) -> None:
    ran = tidemill("chat", "nobody", "--models", repository)
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert "starting" not in ran.stderr


@pytest.mark.slow
def test_a_tensor_models_server_says_what_it_has(server: Server) -> None:
    ran = piped(("half", "--url", f"{server.url}/v1/"), "hello\n", TIDEMILL_KEY="")
    assert ran.returncode == FAILED
    assert "/v1/chat/completions answered 400" in ran.stderr
