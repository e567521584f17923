"""What the command line promises to scripts: clean stdout, words on stderr, stable exit codes."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from serving import Server, tidemill
from small_models import refused_by_its_engine, save, times
from tidemill.cli.main import VERBS

DONE, FAILED, MISUSE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


def done(*arguments: str | Path, **extra: str) -> Any:
    """The JSON that a verb prints with --json, and nothing else anywhere."""
    ran = tidemill(*arguments, "--json", **extra)
    assert (ran.returncode, ran.stderr) == (DONE, "")
    return json.loads(ran.stdout)


def misused(*arguments: str | Path, code: int = MISUSE, **extra: str) -> str:
    """What is said on stderr; stdout is clean."""
    ran = tidemill(*arguments, **extra)
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


# -- words -------------------------------------------------------------------------------------------------------------


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    ran = tidemill("--help")
    assert ran.returncode == DONE
    assert all(verb in ran.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    ran = tidemill(verb, "--help")
    assert (ran.returncode, ran.stderr) == (DONE, "")
    assert f"tidemill {verb}" in ran.stdout


@pytest.mark.parametrize("arguments", [("serv",), ("kyes", "ls"), ("keys", "mak"), ("",)], ids=str)
def test_unknown_verb_is_misuse(arguments: tuple[str, ...]) -> None:
    said = misused(*arguments)
    assert "No such command" in said
    assert "--help" in said


def test_near_miss_is_hinted_at() -> None:
    assert "serve" in misused("serv")
    assert "keys" in misused("kyes", "ls")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("serve", "--http-prot", "1"), "--http-port"),
        (("usage", "--tenent", "x"), "--tenant"),
        (("ls", "--jsn"), "--json"),
        (("--verson",), "--version"),
    ],
    ids=str,
)
def test_unknown_flag_is_misuse_with_a_hint(arguments: tuple[str, ...], hint: str) -> None:
    assert hint in misused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "--http-port", "x"), "x"),
        (("serve", "--http-port", "65536"), "65535"),
        (("serve", "--http-port", "-1"), "at least 0"),
        (("serve", "--queue-max", "0"), "at least 1"),
        (("serve", "--log-level", "loud"), "loud"),
        (("serve", "--config", "nowhere.toml"), "nowhere.toml"),
        (("usage", "--hours", "-1"), "-1"),
        (("usage", "--hours", "soon"), "soon"),
        (("keys", "create"), "--tenant"),
        (("keys", "create", "--tenant", ""), "tenant"),
        (("keys", "create", "--tenant", "x" * 200), "128"),
        (("keys", "revoke"), "KEY_ID"),
        (("try",), "MODEL"),
        (("show",), "MODEL"),
        (("try", "half", "no/such/file"), "no/such/file"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_misuse_is_told_with_the_value(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    assert told in misused(*arguments, TIDEMILL_DATA_DIR=str(tmp_path))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"TIDEMILL_HTTP_PROT": "1"}, "TIDEMILL_HTTP_PROT"),
        ({"TIDEMILL_HTTP_PORT": "web"}, "TIDEMILL_HTTP_PORT"),
        ({"TIDEMILL_NO_AUTH": "maybe"}, "TIDEMILL_NO_AUTH"),
        ({"TIDEMILL_CONFIG": "nowhere.toml"}, "nowhere.toml"),
    ],
    ids=str,
)
def test_environment_that_is_wrong_is_misuse(extra: dict[str, str], told: str) -> None:
    assert told in misused("settings", **extra)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("http_prot = 1", "http_prot"),
        ("http_port = [1]", "http_port"),
        ("http_port = ", "file.toml"),
        ("no_auth = 1", "no_auth"),
    ],
)
def test_file_that_is_wrong_is_misuse(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text(content)
    assert told in misused("settings", "--config", tmp_path / "file.toml")


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_tell_value_and_origin(tmp_path: Path) -> None:
    (tmp_path / "tidemill.toml").write_text("queue_max = 7\nhttp_port = 9\nthreads = 2")
    told = done("settings", "--config", tmp_path / "tidemill.toml", "--http-port", "11", TIDEMILL_QUEUE_MAX="8")
    found = {each["name"]: (each["value"], each["origin"]) for each in told}
    assert found["http_port"] == (11, "flag")
    assert found["queue_max"] == (8, "environment")
    assert found["threads"] == (2, "file")
    assert found["grpc_port"] == (8001, "default")
    assert all(each["about"] for each in told)
    assert "queue_max" in tidemill("settings").stdout


# -- the repository ----------------------------------------------------------------------------------------------------


def test_ls_lists_models_and_the_refused_with_their_reason(repository: Path, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in done("ls", "--models", repository)}
    assert rows["half"]["format"] == "onnx"
    assert rows["echo-fp32"]["format"] == "echo"
    assert all(row["reason"] == "" for row in rows.values())
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"junk")
    (row,) = done("ls", "--models", tmp_path)
    assert "model.onnx" in row["reason"]
    assert "half" in tidemill("ls", "--models", repository).stdout


def test_ls_of_nothing(tmp_path: Path) -> None:
    assert done("ls", "--models", tmp_path / "nothing") == []
    assert "no models" in tidemill("ls", "--models", tmp_path).stdout


def test_show_tells_signature_batching_and_price(repository: Path) -> None:
    (told,) = done("show", "two", "--models", repository, "--call-nanos", "5")
    assert [each["name"] for each in told["inputs"]] == ["a", "b", "count"]
    assert (told["batched"], told["engine"], told["price_nanos"]) == (True, "onnx", 5)
    (fixed,) = done("show", "fixed", "--models", repository)
    assert (fixed["batched"], fixed["max_batch"], fixed["singly"]) == (False, 1, "no batch dimension")
    assert "FP32 [-1, 3]" in tidemill("show", "two", "--models", repository).stdout


def test_show_tells_of_each_version_though_one_is_refused_by_its_engine(tmp_path: Path) -> None:
    refused_by_its_engine(tmp_path)
    save(tmp_path, "broken", times(2), 2)
    ran = tidemill("show", "broken", "--models", tmp_path, "--json")
    assert (ran.returncode, ran.stderr) == (REFUSED, "")
    refused, good = json.loads(ran.stdout)
    assert refused["version"] == 1
    assert "onnx" in refused["reason"]
    assert (good["version"], good["reason"], good["engine"]) == (2, "", "onnx")
    told = tidemill("show", "broken", "--models", tmp_path)
    assert told.returncode == REFUSED
    assert "refused" in told.stdout


@pytest.mark.parametrize("place", ["flag", "environment", "file"])
def test_serve_wants_the_folder_of_models_that_was_named(tmp_path: Path, place: str) -> None:
    gone, words, around = tmp_path / "gone", [], {}
    if place == "flag":
        words = ["--models", str(gone)]
    elif place == "environment":
        around = {"TIDEMILL_MODELS": str(gone)}
    else:
        (tmp_path / "settings.toml").write_text(f'models = "{gone}"')
        words = ["--config", str(tmp_path / "settings.toml")]
    said = misused("serve", *words, "--no-auth", "--data-dir", tmp_path / "data", **around)
    assert f"{gone} is not there" in said


def test_unknown_model_is_a_failure_that_names_those_there_are(repository: Path) -> None:
    for verb in ("show", "try", "serve"):
        said = misused(verb, "nobody", "--models", repository, code=FAILED)
        assert "nobody" in said
        assert "half" in said
        assert "model.unknown" in said


# -- try ---------------------------------------------------------------------------------------------------------------


def test_try_without_a_file_asks_the_sample_or_zeros(repository: Path) -> None:
    assert done("try", "half", "--models", repository)["outputs"] == {"output": [0.5]}
    assert done("try", "fixed", "--models", repository)["outputs"] == {"y": [[0, 0, 0], [0, 0, 0]]}
    assert "answered in" in tidemill("try", "half", "--models", repository).stdout


@pytest.mark.parametrize(
    "content",
    [
        '{"instances": [3.0]}',
        '{"inputs": {"input": [3.0]}}',
        '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1], "data": [3.0]}]}',
    ],
)
def test_try_takes_every_json_form(repository: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "asked.json").write_text(content)
    told = done("try", "half", tmp_path / "asked.json", "--models", repository)
    assert told["outputs"] == {"output": [1.5]}
    assert told["compute_ms"] > 0


def test_try_takes_arrays(repository: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "one.npy", np.array([5.0], np.float32))
    np.savez(tmp_path / "many.npz", input=np.array([7.0], np.float32))
    assert done("try", "half", tmp_path / "one.npy", "--models", repository)["outputs"] == {"output": [2.5]}
    assert done("try", "half", tmp_path / "many.npz", "--models", repository)["outputs"] == {"output": [3.5]}


def test_try_takes_a_path_to_a_bare_file(repository: Path) -> None:
    assert done("try", repository / "half/1/model.onnx")["outputs"] == {"output": [0.0]}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b"{", "JSON"),
        ("a.json", b'{"instances": ["x"]}', "FP32"),
        ("a.json", b'{"inputs": {"other": [1]}}', "other"),
        ("a.npy", b"not an array", "a.npy"),
        ("a.npz", b"not an archive", "a.npz"),
        ("a.npy", b"", "a.npy"),
        ("a.png", b"\x89PNG\r\n", "half has no steps that read image/png, and "),
    ],
)
def test_try_with_a_file_that_does_not_fit_fails_in_words(
    repository: Path, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in misused("try", "half", tmp_path / name, "--models", repository, code=FAILED)


def test_try_never_unpickles(repository: Path, tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert "objects.npy" in misused("try", "half", tmp_path / "objects.npy", "--models", repository, code=FAILED)


# -- keys and usage ----------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked_on_the_data_folder(tmp_path: Path) -> None:
    made = done("keys", "create", "--tenant", "acme", "--label", "one", "--data-dir", tmp_path)
    assert made["key"].startswith("tm-")
    ran = tidemill("keys", "create", "--tenant", "globex", "--admin", "--data-dir", tmp_path)
    assert ran.stdout.strip().startswith("tm-")
    assert "not shown again" in ran.stderr
    rows = done("keys", "ls", "--data-dir", tmp_path)
    assert sorted((row["tenant"], row["label"], row["admin"]) for row in rows) == [
        ("acme", "one", False),
        ("globex", "", True),
    ]
    assert done("keys", "revoke", made["id"], "--data-dir", tmp_path) == {"id": made["id"], "revoked": True}
    revoked = {row["tenant"]: row["revoked_at"] is not None for row in done("keys", "ls", "--data-dir", tmp_path)}
    assert revoked == {"acme": True, "globex": False}
    said = misused("keys", "revoke", "nothing", "--data-dir", tmp_path, code=FAILED)
    assert "nothing" in said
    assert "key.unknown" in said


def test_usage_of_nothing(tmp_path: Path) -> None:
    assert done("usage", "--data-dir", tmp_path) == []
    assert "nothing was used" in tidemill("usage", "--data-dir", tmp_path).stdout


def test_data_folder_that_cannot_be_one_is_misuse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data-dir" in misused("keys", "ls", "--data-dir", tmp_path / "file")
    (tmp_path / "tidemill.db").write_bytes(b"this is no database, whatever its name says" * 100)
    assert "tidemill.db" in misused("usage", "--data-dir", tmp_path)


def test_verbs_ask_a_running_server(server: Server) -> None:
    made = done("keys", "create", "--tenant", "remote", "--url", server.url)
    assert made["id"] in [row["id"] for row in done("keys", "ls", "--url", server.url)]
    assert done("keys", "revoke", made["id"], "--url", server.url)["revoked"] is True
    assert done("usage", "--url", server.url) == []
    said = misused("keys", "revoke", "nothing", "--url", server.url, code=FAILED)
    assert "nothing" in said


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "ftp://x", "http://", "http://[::1"])
def test_server_that_does_not_answer_is_a_failure(url: str) -> None:
    assert url in misused("usage", "--url", url, code=FAILED)


def test_what_answers_may_be_no_tidemill(server: Server) -> None:
    assert "refused" in misused("usage", "--url", f"{server.url}/metrics", code=FAILED)


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong_where_nothing_is(repository: Path, tmp_path: Path) -> None:
    told = done(
        "doctor",
        "--models",
        repository,
        "--data-dir",
        tmp_path,
        "--no-auth",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--console-port",
        "0",
        "--connections-max",
        "64",
    )
    assert told["problems"] == []
    assert told["parts"]["onnxruntime"]
    assert "usable" in told["machine"]["cores"]


def test_doctor_tells_what_would_keep_serve_from_working(tmp_path: Path) -> None:
    (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
    (tmp_path / "models" / "bad" / "1" / "model.onnx").write_bytes(b"junk")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = tidemill(
            "doctor",
            "--models",
            tmp_path / "models",
            "--data-dir",
            tmp_path / "data",
            "--http-port",
            str(port),
            "--grpc-port",
            "0",
            "--json",
        )
    assert ran.returncode == REFUSED
    problems = " ".join(json.loads(ran.stdout)["problems"])
    assert str(port) in problems
    assert "bad" in problems
    assert "no key would be accepted" in problems


def test_doctor_takes_a_wrong_setting_for_a_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("http_prot = 1")
    ran = tidemill("doctor", "--config", tmp_path / "bad.toml", "--json")
    assert ran.returncode == REFUSED
    assert "http_prot" in ran.stdout


# -- serve -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])  # noqa: S104
def test_public_address_is_refused_without_insecure(repository: Path, tmp_path: Path, host: str) -> None:
    for flags in ((), ("--no-auth",)):
        said = misused("serve", "half", "--models", repository, "--data-dir", tmp_path, "--host", host, *flags)
        assert "--insecure" in said
        assert host in said


def test_public_address_with_insecure_is_served(repository: Path, tmp_path: Path) -> None:
    flags = ("half", "--no-auth", "--no-charge", "--host", "0.0.0.0", "--insecure")  # noqa: S104
    with Server(repository, tmp_path, *flags) as server:
        assert server.predict("half", {"instances": [1]}).status_code == 200


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port"])
def test_taken_port_is_misuse_and_named(repository: Path, tmp_path: Path, flag: str) -> None:
    ports = {"--http-port": "0", "--grpc-port": "0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports[flag] = str(taken.getsockname()[1])
        said = misused(
            "serve",
            "half",
            "--models",
            repository,
            "--data-dir",
            tmp_path,
            "--no-console",
            "--no-auth",
            "--log-level",
            "error",
            *(word for pair in ports.items() for word in pair),
        )
    assert ports[flag] in said
    assert flag in said


def test_address_that_is_not_ours_is_misuse(repository: Path, tmp_path: Path) -> None:
    said = misused(
        "serve",
        "half",
        "--models",
        repository,
        "--data-dir",
        tmp_path,
        "--host",
        "192.0.2.1",
        "--insecure",
        "--no-console",
    )
    assert "192.0.2.1" in said


def test_serve_says_where_in_one_line_of_json_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    with Server(repository, tmp_path, "half", "--no-auth") as server:
        assert {"http_url", "grpc_address", "ready"} <= server.told.keys()
        assert server.said.endswith(b"}\n")
        assert server.said.count(b"\n") == 1
        server.process.terminate()
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""
        assert server.ended() == 0


def test_serve_with_a_banner_for_people(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, tmp_path, "half", "--no-auth")
    server.command.remove("--json")
    server.spawn()
    assert server.process.stdout is not None
    said = [server.process.stdout.readline().decode() for _ in range(3)]
    server.process.send_signal(signal.SIGINT)
    assert server.ended() == 0
    assert said[0].startswith("REST     http://127.0.0.1:")
    assert said[2].startswith("model    half version 1")


def test_interrupt_of_a_verb_is_130(tmp_path: Path) -> None:
    """A verb that waits for a server that says nothing."""
    import subprocess
    import sys

    from serving import environment

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "tidemill", "usage", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        connection, _ = deaf.accept()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
        connection.close()
    assert process.returncode == INTERRUPTED
    assert stdout == b""
    assert b"Traceback" not in stderr
