"""`tidemill bench` as people and scripts meet it: real services, short loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from serving import Server, environment, eventually, tidemill

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130
SHORT = ("--seconds", "0.15", "--rounds", "2", "--warm-seconds", "0", "--requests", "50")


def bench(*words: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return tidemill("bench", *words, **extra)


def told(*words: str | Path) -> Any:
    ran = bench(*words, *SHORT, "--json")
    assert ran.returncode == DONE, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_a_model_is_served_measured_and_its_service_ended(repository: Path, tmp_path: Path) -> None:
    before = {each.pid for each in psutil.process_iter()}
    plot = tmp_path / "out.png"
    words = ("half", "--models", repository, "--in-flight-max", "3", "--core-hour", "0.04", "--slo-ms", "1000")
    ran = bench(*words, "--call-nanos", "1", *SHORT)
    assert ran.returncode == MISUSE, "it has the settings of a service that bear on speed, and no others"
    ran = bench(*words, "--plot", plot, *SHORT, "--json")
    assert ran.returncode == DONE, ran.stderr
    found = json.loads(ran.stdout)
    assert [each["load"] for each in found["loads"]] == ["1 in flight", "2 in flight", "3 in flight"]
    for each in found["loads"]:
        assert each["errors"] == {}
        assert 0 < each["ok"] == each["sent"] <= 100
        assert 0 < each["p50_ms"] <= each["p90_ms"] <= each["p99_ms"]
        assert each["goodput"] == pytest.approx(each["per_second"])
        assert each["cpu_us"] > 0
        assert each["cpu_cost_per_1000"] == pytest.approx(each["cpu_us"] / 1000 / 3600 * 0.04)
        assert each["rows_per_batch"] >= 1
        assert len(each["samples"]) == 2
    (side,) = found["sides"]
    assert side["charged_per_1000"] == pytest.approx(1.0)
    assert (side["cpu_from"], found["interrupted"], found["ratios"]) == ("processes", False, [])
    assert plot.read_bytes().startswith(b"\x89PNG")
    left = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before]
    assert not [each for each in left if "tidemill-bench-" in " ".join(each.info["cmdline"] or [])]


@pytest.mark.slow
def test_a_running_server_is_measured_with_arrivals_and_a_file(server: Server, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", input=np.ones((4, 2), np.float32))
    words = ("half@1", "--url", server.url, "--door", "tfs", "--rate", "60", "--data", tmp_path / "in.npz")
    ran = bench(*words, *SHORT)
    assert ran.returncode == DONE, ran.stderr
    assert "60/s" in ran.stdout
    assert "in flight" not in ran.stdout
    assert "round 2 of 2" in ran.stderr
    found = told(*words)
    (load,) = found["loads"]
    assert load["ok"] == load["sent"] > 0
    assert load["rows_per_batch"] >= 4
    assert load["lag_ms"] is not None


@pytest.mark.slow
def test_two_doors_stand_side_by_side_with_ratios(server: Server) -> None:
    words = ("half", "--url", server.url, "--door", "v2-json", "--in-flight-max", "2")
    against = ("--against", server.told["grpc_address"], "--against-door", "tfs-grpc")
    found = told(*words, *against)
    assert [each["side"] for each in found["loads"]] == ["this", "other"] * 2
    for each in found["ratios"]:
        assert each["rounds"] == 2
        for name in ("per_second", "p50_ms", "p99_ms", "cpu_us"):
            assert 0 < each[name]["low"] <= each[name]["middle"] <= each[name]["high"]
    ran = bench(*words, *against, *SHORT)
    assert ran.returncode == DONE, ran.stderr
    assert "this over other" in ran.stdout


@pytest.mark.slow
def test_a_key_is_sent(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path / "data") as keyed:
        made = json.loads(tidemill("keys", "create", "--tenant", "t", "--data-dir", keyed.data_dir, "--json").stdout)
        words = ("half", "--url", keyed.url, "--in-flight-max", "1", *SHORT)
        assert bench(*words, TIDEMILL_KEY=made["key"]).returncode == DONE
        ran = bench(*words)
        assert (ran.returncode, ran.stdout) == (FAILED, "")
        assert "wants a key" in ran.stderr or "401" in ran.stderr


def test_ctrl_c_tells_what_there_is(server: Server) -> None:
    command = [sys.executable, "-m", "tidemill", "bench", "half", "--url", server.url, "--seconds", "0.05"]
    command += ["--rounds", "1000", "--warm-seconds", "0", "--in-flight-max", "1", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as running:
        assert running.stderr is not None
        while "round 3 of" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    found = json.loads(out)
    assert found["interrupted"] is True
    assert 2 <= found["loads"][0]["rounds"] < 1000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_service_that_bench_started(repository: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tidemill", "bench", "half", "--models", str(repository), "--rounds", "1000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as running:
        assert running.stderr is not None
        while "round 1 of" not in running.stderr.readline():
            assert running.poll() is None
        (service,) = psutil.Process(running.pid).children()
        running.send_signal(number)
        running.communicate(timeout=60)
    eventually(lambda: not service.is_running(), "the service has ended")
    assert running.returncode in (INTERRUPTED, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("half", "--url", "http://127.0.0.1:1"), FAILED, "nothing listens"),
        (("half", "--url", "http://127.0.0.1:1", "--threads", "2"), MISUSE, "--threads"),
        (("half", "--url", "http://127.0.0.1:1", "--against", ""), MISUSE, "--against"),
        (("half", "--door", "openai", "--against", "http://h:1", "--against-door", "v2"), MISUSE, "cannot be compared"),
        (("half", "--door", "openai", "--shape", "x=1"), MISUSE, "--shape is of tensors"),
        (("half", "--door", "v2", "--slo-ttft-ms", "5"), MISUSE, "--slo-ttft-ms is of language models"),
        (("half", "--door", "v3"), MISUSE, "v2-grpc"),
        (("half", "--url", "http://127.0.0.1:1", "--in-flight-max", "0"), MISUSE, "--rate"),
        (("half", "--url", "http://127.0.0.1:1", "--rate", "0"), MISUSE, "--rate"),
        (("no-such-model",), FAILED, "no-such-model"),
    ],
    ids=str,
)
def test_misuse_and_what_is_not_there_are_told(words: tuple[str, ...], code: int, hint: str, tmp_path: Path) -> None:
    ran = bench(*words, "--models", tmp_path) if "--url" not in words else bench(*words)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert hint in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_server_that_is_no_inference_server_is_told(server: Server) -> None:
    ran = bench("half", "--url", f"{server.url}/metrics")
    assert (ran.returncode, ran.stdout) == (FAILED, "")
    assert "404" in ran.stderr
    assert os.linesep not in ran.stderr.strip()
