"""`tidemill bench --door openai`: loads of words, on a small true language model behind the real door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import KEY
from serving import tidemill
from speaking import SpeakingServer
from tidemill.core.generation import Generate

DONE, FAILED = 0, 1
SHORT = ("--seconds", "2", "--rounds", "2", "--warm-seconds", "0", "--requests", "8", "--distinct", "8")
WORDS = ("--door", "openai", "--prompt-tokens", "32", "--max-tokens", "16")


@pytest.fixture(scope="module")
def mill() -> Iterator[SpeakingServer]:
    with SpeakingServer() as running:
        yield running


def bench(mill: SpeakingServer, *words: str | Path, model: str = "mill") -> Any:
    return tidemill("bench", model, "--url", mill.url, *WORDS, *SHORT, *words, TIDEMILL_KEY=KEY)


def test_tokens_first_and_further_are_told_with_goodput_and_a_picture(mill: SpeakingServer, tmp_path: Path) -> None:
    plot = tmp_path / "words.png"
    words = ("--in-flight-max", "2", "--rate", "40", "--slo-ttft-ms", "60000", "--slo-tpot-ms", "60000")
    ran = bench(mill, *words, "--plot", plot, "--json")
    assert ran.returncode == DONE, ran.stderr
    found = json.loads(ran.stdout)
    assert [each["load"] for each in found["loads"]] == ["1 in flight", "2 in flight", "40/s"]
    for each in found["loads"]:
        told = each["words"]
        assert each["errors"] == {}
        assert 0 < each["ok"] == each["sent"] <= 16
        assert (told["prompt_tokens"], told["completion_tokens"]) == (32, 16)
        assert 0 < told["ttft_p50_ms"] <= told["ttft_p99_ms"] <= each["p99_ms"]
        assert 0 < told["tpot_p50_ms"] <= told["tpot_p99_ms"]
        assert each["goodput"] == pytest.approx(each["per_second"])
        assert told["per_second"] == pytest.approx(each["per_second"] * 16)
    assert plot.read_bytes().startswith(b"\x89PNG")
    asked: Any = mill.generator.asked[-1]
    assert (len(asked.tokens), asked.sampling.max_tokens, asked.sampling.ignore_eos) == (32, 16, True)


def test_a_model_that_speaks_is_asked_in_words_unless_another_door_is_named(mill: SpeakingServer) -> None:
    words = ("--url", mill.url, "--in-flight-max", "1", *SHORT, "--json")
    for model, door in (("mill", "openai"), ("half", "v2")):
        ran = tidemill("bench", model, *words, TIDEMILL_KEY=KEY)
        assert ran.returncode == DONE, ran.stderr
        assert {each["door"] for each in json.loads(ran.stdout)["sides"]} == {door}


def test_no_load_begins_with_prompts_that_another_sent(mill: SpeakingServer) -> None:
    mill.generator.asked.clear()
    ran = bench(mill, "--in-flight-max", "2", "--distinct", "64")
    assert ran.returncode == DONE, ran.stderr
    asked = [each.tokens for each in mill.generator.asked if isinstance(each, Generate)]
    assert len(set(asked)) == len(asked) > 16


def test_two_servers_stand_side_by_side(mill: SpeakingServer) -> None:
    against = ("--against", f"{mill.url}/v1", "--against-key", KEY, "--in-flight-max", "1", "--slo-ttft-ms", "0.001")
    ran = bench(mill, *against)
    assert ran.returncode == DONE, ran.stderr
    assert "this over other" in ran.stdout
    assert "TTFT p50 ms" in ran.stdout
    assert "first token within 0.001 ms" in ran.stdout


def test_a_stream_that_breaks_is_an_error_and_no_answer(mill: SpeakingServer) -> None:
    try:
        mill.generator.breaks_after = 4
        ran = bench(mill, "--in-flight-max", "1")
    finally:
        mill.generator.breaks_after = None
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert "engine.failed" in ran.stderr


@pytest.mark.parametrize(("model", "said"), [("half", "no language model"), ("nobody", "nobody")])
def test_a_model_that_does_not_speak_is_told(mill: SpeakingServer, model: str, said: str) -> None:
    ran = bench(mill, "--in-flight-max", "1", model=model)
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert said in ran.stderr
