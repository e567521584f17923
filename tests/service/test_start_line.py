"""TensorFlow Serving's start line before a real service: the ports that it asks for, its keys, its socket."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from serving import START_S_MAX, environment, tidemill
from small_models import save, times

HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save(tmp_path / "models", "half", times(0.5))
    return tmp_path / "models"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A service started by `words`, and what it printed until its model served."""
    command = [sys.executable, "-m", "tidemill", "serve", *words]
    around = environment(TIDEMILL_DATA_DIR=f"{tmp_path}/data")
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=around)
    assert running.stdout is not None
    try:
        said = b""
        while b"model    " not in said:
            assert select.select([running.stdout], [], [], START_S_MAX)[0], said
            part = os.read(running.stdout.fileno(), 65536)
            assert part, (said, running.communicate()[1])
            said += part
        yield running, said.decode()
    finally:
        running.terminate()
        running.communicate(timeout=START_S_MAX)


def checked(target: str) -> bytes:
    with grpc.insecure_channel(target) as channel:
        return bytes(channel.unary_unary(HEALTH)(b"", timeout=10))


def test_only_the_ports_that_were_asked_for_are_open_to_others(models: Path, tmp_path: Path) -> None:
    rest, port, path = free_port(), free_port(), tmp_path / "grpc.sock"
    with started(
        tmp_path, f"--rest_api_port={rest}", f"--port={port}", "--model_name=half", f"--model_base_path={models}/half",
        "--host=0.0.0.0", "--insecure", f"--grpc_socket_path={path}", "--max_num_load_retries=3",
    ) as (running, said):  # fmt: skip
        listening = [each.laddr for each in psutil.Process(running.pid).net_connections() if each.status == "LISTEN"]
        everywhere = "0.0.0.0"  # noqa: S104 - what the start line says
        assert {each.port for each in listening if each.ip == everywhere} == {rest, port}
        assert [each.ip.removeprefix("::ffff:") for each in listening if each.port not in {rest, port}] == ["127.0.0.1"]
        assert re.findall(r"\d+\.\d+\.\d+\.\d+:(\d+)", said) == [str(rest), str(port)]
        assert httpx.post(f"http://127.0.0.1:{rest}/v1/models/half:predict", json={"instances": [[4.0]]}).json() == {
            "predictions": [[2.0]]
        }
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert {checked(f"127.0.0.1:{port}"), checked(f"127.0.0.1:{rest}"), checked(f"unix:{path}")} == {b"\x08\x01"}
        assert path.stat().st_mode & 0o777 == 0o600


def test_keys_of_a_file_are_asked_for_until_they_leave_it(models: Path, tmp_path: Path) -> None:
    file, port = tmp_path / "keys.txt", free_port()
    line = [f"--rest_api_port={port}", f"--port={free_port()}", "--model_name=half", f"--model_base_path={models}"]

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        asked = {"instances": [[4.0]]}
        return httpx.post(f"http://127.0.0.1:{port}/v1/models/half:predict", json=asked, headers=headers).status_code

    told = []
    for keys in ("my_key:abcde12345", "other:fghij67890", "# both\nmy_key:abcde12345\nother: fghij67890"):
        file.write_text(keys)
        with started(tmp_path, *line, f"--auth_key_file={file}"):
            told.append((status(""), status("abcde12345"), status("fghij67890")))
    assert told == [(401, 200, 401), (401, 401, 200), (401, 200, 200)]


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ("nothing", "line 1: expected TENANT:KEY"),
        ("a:short", "line 1: a key has 8 to 1024"),
        ("a:abcdefgh\nb:abcdefgh", "line 2: 'b' has the key of 'a'"),
        ("", "holds no key"),
        (None, "names no file"),
    ],
)
def test_bad_key_files_end_the_start_and_show_no_key(
    models: Path, tmp_path: Path, keys: str | None, match: str
) -> None:
    file = tmp_path / "keys.txt"
    if keys is not None:
        file.write_text(keys)
    done = tidemill("serve", "--models", models, "--data-dir", tmp_path / "data", "--auth-key-file", file)
    assert done.returncode == 2
    assert match in done.stderr
    assert "abcdefgh" not in done.stderr


def test_dashes_beside_own_words_open_the_two_ports_as_well(models: Path, tmp_path: Path) -> None:
    rest = free_port()
    own = ["--models", str(models), "--rest-api-port", str(rest), "--http-port", "0", "--grpc-port", "0"]
    with started(tmp_path, "half", *own, "--no-console", "--no-auth"):
        assert httpx.get(f"http://127.0.0.1:{rest}/readyz").status_code == 200


def test_files_of_the_line_start_as_they_are(models: Path, tmp_path: Path) -> None:
    """A list of models, batching and monitoring, each with words that have no effect here."""
    listed, batching, monitoring = (
        tmp_path / name for name in ("models.config", "batching.config", "monitoring.config")
    )
    listed.write_text(
        f"""model_config_list {{ config {{
          name: 'half', base_path: '{models / "half"}', model_platform: 'tensorflow', model_type: TENSORFLOW
          logging_config {{ sampling_config {{ sampling_rate: 0.1 }} }}
        }} }}"""
    )
    batching.write_text(
        "max_batch_size { value: 16 }\nbatch_timeout_micros { value: 0 }\nlow_priority_max_batch_size { value: 8 }\n"
        "mixed_priority_batching_policy: LOW_PRIORITY_PADDING_WITH_MAX_BATCH_SIZE\n"
    )
    monitoring.write_text("prometheus_config: { enable: true, path: '/monitoring/prometheus/metrics' }")
    rest = free_port()
    with started(
        tmp_path, f"--rest_api_port={rest}", f"--model_config_file={listed}", f"--batching_parameters_file={batching}",
        f"--monitoring_config_file={monitoring}", "--enable_batching", f"--port={free_port()}",
    ) as (running, _):  # fmt: skip
        url = f"http://127.0.0.1:{rest}"
        answer = httpx.post(f"{url}/v1/models/half:predict", json={"instances": [[4.0]]})
        assert answer.json() == {"predictions": [[2.0]]}
        assert httpx.get(f"{url}/v2/models/half/config").json()["max_batch_size"] == 16
        assert "tidemill_requests_total" in httpx.get(f"{url}/monitoring/prometheus/metrics").text
        assert running.stderr is not None
        told = os.read(running.stderr.fileno(), 2**20).decode()
        for field in ("logging_config", "model_type", "low_priority_max_batch_size", "mixed_priority_batching_policy"):
            assert f"{field} has no effect" in told
