"""What doctor finds wrong, each thing for itself."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from authority import Authority, Pair
from serving import tidemill
from small_models import echo, refused_by_its_engine, save, times
from tidemill.cli.looked_into import problems_of
from tidemill.core.settings import Settings

DECLARED = """
inputs = [{name = "x", datatype = "FP32", shape = [-1]}]
outputs = [{name = "x", datatype = "FP32", shape = [-1]}]
"""

REMOTE = 'engine = "remote"\nremote = {protocol = "v2", upstream = [{url = "http://127.0.0.1:1"}]}\n'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """Settings with which nothing is wrong."""
    echo(tmp_path / "models", "good", "FP32")
    where = {"models": tmp_path / "models", "data_dir": tmp_path / "data"}
    return {"http_port": 0, "grpc_port": 0, "console_port": 0, "no_auth": True, "connections_max": 100, **where}


def found(good: dict[str, Any], **more: Any) -> list[str]:
    return problems_of(Settings(**good | more))


def of(pair: Pair) -> dict[str, str]:
    return {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}


def test_nothing_is_found_where_all_is_well(good: dict[str, Any], authority: Authority) -> None:
    pair = authority.sign("good")
    pair.key.chmod(0o600)
    assert found(good, **of(pair)) == []


@pytest.mark.parametrize("flag", ["http_port", "grpc_port", "console_port", "rest_api_port", "port"])
def test_a_port_that_is_taken(good: dict[str, Any], flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (problem,) = found(good, **{flag: taken.getsockname()[1]})
    assert "cannot be listened on" in problem


def test_a_port_that_is_asked_for_twice(good: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    (problem,) = found(good, http_port=free, grpc_port=free)
    assert problem.startswith(f"--grpc-port and --http-port are both {free}")


def test_a_public_address_without_tls(good: dict[str, Any]) -> None:
    (problem,) = found(good, host="0.0.0.0")  # noqa: S104 - to be refused
    assert "no keys" in problem
    assert "no TLS" in problem


def test_certificates(good: dict[str, Any], authority: Authority, tmp_path: Path) -> None:
    near, old, other = authority.sign("near", 3), authority.sign("old", -1), authority.sign("other")
    for each in (near, old, other):
        each.key.chmod(0o600)
    assert "expires in 3 days" in found(good, **of(near))[0]
    assert "expired on" in found(good, **of(old))[0]
    assert "does not belong" in found(good, tls_cert=str(near.cert), tls_key=str(other.key))[0]
    other.key.chmod(0o644)
    assert "everybody on this machine can read" in found(good, **of(other))[0]
    assert "--tls-key is missing" in " ".join(found(good, tls_cert=str(near.cert)))


def test_no_key_and_a_refused_model_and_a_bad_collector(good: dict[str, Any], tmp_path: Path) -> None:
    assert "no key would be accepted" in found(good, no_auth=False)[0]
    (tmp_path / "models" / "bad" / "1").mkdir(parents=True)
    assert "model bad version 1" in found(good)[0]
    assert any("http://HOST:4318" in each for each in found(good, otlp_endpoint="collector"))


def test_a_list_of_models_that_cannot_be_read_or_names_what_is_gone(good: dict[str, Any], tmp_path: Path) -> None:
    listed = tmp_path / "models.config"
    listed.write_text("model_config_list {")
    assert f"{listed}:" in found(good, model_config_file=str(listed))[0]
    listed.write_text(f"model_config_list {{ config {{ name: 'x' base_path: '{tmp_path}/gone' }} }}")
    assert f"{tmp_path}/gone holds no model" in found(good, model_config_file=str(listed))[0]
    listed.write_text(f"model_config_list {{ config {{ name: 'x' base_path: '{tmp_path}/models/good' }} }}")
    assert found(good, model_config_file=str(listed)) == []


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('engine = "onxx"', "there is no 'engine.onxx'"),
        (
            'engine = "ensemble"\nstage = [{model = "gone"}]\n' + DECLARED,
            "stage 1 asks 'gone', which is not served here; serve it too (served are good, odd)",
        ),
        ('engine = "echo"\npre = [{step = "imagee"}]\n' + DECLARED, "there is no step 'imagee'"),
        (REMOTE + 'pre = [{step = "image"}]', "it is asked with words"),
        (REMOTE + "[[warm_up]]\n[warm_up.inputs]", "is for a model that an engine here answers with tensors"),
    ],
    ids=["engine", "stage", "step", "step of words", "warm-up of words"],
)
def test_models_that_serve_would_refuse(good: dict[str, Any], tmp_path: Path, toml: str, said: str) -> None:
    save(tmp_path / "models", "odd", times(2))
    (tmp_path / "models" / "odd" / "tidemill.toml").write_text(toml)
    (problem,) = found(good)
    assert problem.startswith("model odd version 1: ")
    assert said in problem


def test_what_only_its_engine_refuses_is_found_when_each_is_opened(good: dict[str, Any], tmp_path: Path) -> None:
    refused_by_its_engine(tmp_path / "models")
    assert found(good) == []
    (problem,) = problems_of(Settings(**good), load=True)
    assert problem.startswith("model broken version 1: ")


def test_a_folder_of_models_that_is_not_there_is_told_where_it_was_named(tmp_path: Path) -> None:
    for flags, around in ((["--models", tmp_path / "gone"], {}), ([], {"TIDEMILL_MODELS": f"{tmp_path}/gone"})):
        ran = tidemill("doctor", *flags, "--data-dir", tmp_path / "data", "--json", **around)
        assert ran.returncode == 3
        assert any(f"{tmp_path}/gone is not there" in each for each in json.loads(ran.stdout)["problems"])


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_cannot_be_written(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert found(good, data_dir=tmp_path / "locked")


def test_a_data_folder_that_is_a_file(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert found(good, data_dir=tmp_path / "file")


def test_the_verb_tells_all_at_once_as_json_and_exits_with_3(good: dict[str, Any], tmp_path: Path) -> None:
    flags = ["--host", "0.0.0.0", "--models", good["models"], "--data-dir", good["data_dir"]]  # noqa: S104
    ran = tidemill("doctor", *flags, "--http-port", "0", "--grpc-port", "0", "--console-port", "0", "--json")
    assert (ran.returncode, ran.stderr) == (3, "")
    told = json.loads(ran.stdout)
    assert told.keys() == {"machine", "parts", "problems"}
    assert [each.split()[0] for each in told["problems"][:2]] == ["--host", "no"]
