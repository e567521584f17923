"""Who may ask: keys at every door, judged before the body, revoked while the server runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import Server, eventually, headers_of, post, tidemill

BODY = b'{"instances":[4.0]}'
PREDICT = "/v1/models/half:predict"
INFER = "/v2/models/half/infer"
REVOKED_WITHIN_S = 1.0


def made(data_dir: Path, tenant: str, *flags: str) -> dict[str, Any]:
    done = tidemill("keys", "create", "--tenant", tenant, "--data-dir", data_dir, "--json", *flags)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def acme(data_dir: Path) -> dict[str, Any]:
    return made(data_dir, "acme", "--label", "tests")


@pytest.fixture(scope="module")
def admin(data_dir: Path) -> dict[str, Any]:
    return made(data_dir, "operators", "--admin")


@pytest.fixture(scope="module")
def guarded(repository: Path, data_dir: Path, acme: dict[str, Any], admin: dict[str, Any]) -> Iterator[Server]:
    with Server(repository, data_dir, "--queue-max", "4", "--access-log") as running:
        yield running


WRONG = {
    "none": ((), "key.missing"),
    "empty": (("authorization: ",), "key.missing"),
    "another scheme": (("authorization: Basic dXNlcjpwYXNz",), "key.missing"),
    "no key": (("authorization: Bearer",), "key.missing"),
    "spaces": (("authorization: Bearer    ",), "key.missing"),
    "unknown": (("authorization: Bearer tm-unknown",), "key.invalid"),
    "long": (("authorization: Bearer " + "k" * 10_000,), "key.invalid"),
    "latin": (("authorization: Bearer k\xe9y",), "key.invalid"),
}


@pytest.mark.parametrize("lines", WRONG)
@pytest.mark.parametrize("path", [PREDICT, INFER, "/admin/v1/keys"])
def test_without_a_good_key_the_answer_is_401_before_the_body(guarded: Server, path: str, lines: str) -> None:
    """Only the head is sent; a server that wants the body first would say nothing."""
    given, code = WRONG[lines]
    head = headers_of(path, 50_000, *given).decode().encode("latin-1")
    with guarded.connect() as wire:
        answer = wire.ask(head)
        assert (answer.status, answer.code) == (401, code)
        assert answer.header("www-authenticate") == "Bearer"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/half",
        "/v1/models/half/metadata",
        "/v2/models/half",
        "/admin/v1/overview",
        "/admin/v1/usage",
        "/admin/v1/keys",
    ],
)
def test_every_route_that_tells_something_asks_for_a_key(guarded: Server, path: str, admin: dict[str, Any]) -> None:
    assert guarded.client.get(path).status_code == 401
    assert guarded.client.get(path, headers=bearer("tm-unknown")).status_code == 401
    assert guarded.client.get(path, headers=bearer(admin["key"])).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models/nobody:predict", "/v2/models/nobody/infer", "/v1/models/half/versions/9:predict"]
)
def test_which_models_there_are_is_not_told_to_strangers(guarded: Server, path: str) -> None:
    answer = guarded.client.post(path, content=BODY)
    assert (answer.status_code, answer.json()["code"]) == (401, "key.missing")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"])
def test_what_watches_a_service_needs_no_key(guarded: Server, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_good_key_is_answered(guarded: Server, acme: dict[str, Any], scheme: str) -> None:
    answer = guarded.client.post(PREDICT, content=BODY, headers={"authorization": f"{scheme} {acme['key']}"})
    assert answer.json() == {"predictions": [2.0]}


def test_key_in_the_address_is_no_key(guarded: Server, acme: dict[str, Any]) -> None:
    assert guarded.client.post(f"{PREDICT}?key={acme['key']}", content=BODY).status_code == 401


def test_refused_body_is_not_taken_for_the_next_request(guarded: Server, acme: dict[str, Any]) -> None:
    """A body that follows a 401 may hold a request of its own; it must never be run."""
    inner = post("/v1/models/poison:predict", b'{"instances":[3]}', f"authorization: Bearer {acme['key']}")
    name = 'tidemill_requests_total{model="poison",version="1"}'
    before = guarded.metrics()[name]
    with guarded.connect() as wire:
        assert wire.ask(post(PREDICT, inner)).status == 401
        assert wire.ask(post(PREDICT, BODY, f"authorization: Bearer {acme['key']}")).body == b'{"predictions":[2.0]}'
    assert guarded.metrics()[name] == before


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "overview"), ("GET", "usage"), ("GET", "keys"), ("POST", "keys"), ("DELETE", "keys/abc")],
)
def test_admin_api_wants_an_admin_key(guarded: Server, acme: dict[str, Any], method: str, path: str) -> None:
    answer = guarded.client.request(method, f"/admin/v1/{path}", headers=bearer(acme["key"]))
    assert (answer.status_code, answer.json()["code"]) == (403, "key.forbidden")
    assert acme["key"] not in answer.text


def test_revoking_by_the_command_line_reaches_a_running_server(guarded: Server, data_dir: Path) -> None:
    key = made(data_dir, "passing")

    def status() -> int:
        return guarded.client.post(PREDICT, content=BODY, headers=bearer(key["key"])).status_code

    eventually(lambda: status() == 200, "the new key is known", REVOKED_WITHIN_S)
    assert tidemill("keys", "revoke", key["id"], "--data-dir", data_dir).returncode == 0
    eventually(lambda: status() == 401, "the revoked key is refused", REVOKED_WITHIN_S)
    refused = guarded.client.post(PREDICT, content=BODY, headers=bearer(key["key"]))
    assert refused.json()["code"] == "key.revoked"
    assert key["id"] in refused.json()["error"]


# -- the admin API -----------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked_over_the_admin_api(guarded: Server, admin: dict[str, Any]) -> None:
    client, headers = guarded.client, bearer(admin["key"])
    answer = client.post("/admin/v1/keys", json={"tenant": "remote", "label": "a label"}, headers=headers)
    assert answer.status_code == 201
    key = answer.json()
    assert client.post(PREDICT, content=BODY, headers=bearer(key["key"])).status_code == 200
    listed = {each["id"]: each for each in client.get("/admin/v1/keys", headers=headers).json()["keys"]}
    assert (listed[key["id"]]["tenant"], listed[key["id"]]["label"], listed[key["id"]]["revoked_at"]) == (
        "remote",
        "a label",
        None,
    )
    assert "digest" not in listed[key["id"]]
    assert client.delete(f"/admin/v1/keys/{key['id']}", headers=headers).json() == {"id": key["id"], "revoked": True}
    assert client.post(PREDICT, content=BODY, headers=bearer(key["key"])).status_code == 401


def test_no_secret_is_ever_listed(guarded: Server, admin: dict[str, Any], acme: dict[str, Any], data_dir: Path) -> None:
    told = guarded.client.get("/admin/v1/keys", headers=bearer(admin["key"])).text
    told += (
        guarded.client.get("/admin/v1/overview", headers=bearer(admin["key"])).text
        + guarded.client.get("/metrics").text
    )
    done = tidemill("keys", "ls", "--data-dir", data_dir)
    stored = b"".join(path.read_bytes() for path in data_dir.glob("tidemill.db*"))
    for key in (admin["key"], acme["key"]):
        assert key not in told + done.stdout + done.stderr
        assert key.encode() not in stored
        assert key.removeprefix("tm-").encode() not in stored


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "request.malformed"),
        (b"{", "request.malformed"),
        (b"[]", "request.malformed"),
        (b"{}", "request.malformed"),
        (b'{"tenant": 5}', "request.malformed"),
        (b'{"tenant": "a", "admin": "yes"}', "request.malformed"),
        (b'{"tenant": "a", "owner": "b"}', "request.malformed"),
        (b'{"tenant": "\xff"}', "request.malformed"),
        (b'{"tenant": ""}', "setting.invalid"),
        (b'{"tenant": "a\\u0000b"}', "setting.invalid"),
        (b'{"tenant": "a\\nb"}', "setting.invalid"),
        (b'{"tenant": "a", "label": "\\u001b[31m"}', "setting.invalid"),
        (b'{"tenant": "%b"}' % (b"x" * 129), "setting.invalid"),
        (b'{"tenant": "%b"}' % (b"x" * 70_000), "request.too_large"),
        (b'{"tenant": "\\ud800"}', "setting.invalid"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wish_for_a_key_that_is_wrong(guarded: Server, admin: dict[str, Any], body: bytes, code: str) -> None:
    answer = guarded.client.post("/admin/v1/keys", content=body, headers=bearer(admin["key"]))
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["code"] in (code, "request.malformed")


def test_unknown_key_cannot_be_revoked(guarded: Server, admin: dict[str, Any]) -> None:
    answer = guarded.client.delete("/admin/v1/keys/nothing", headers=bearer(admin["key"]))
    assert (answer.status_code, answer.json()["code"]) == (404, "key.unknown")


@pytest.mark.parametrize("since", ["x", "-1", "1.5", "9" * 20, "²", "NaN"])
def test_usage_since_no_time(guarded: Server, admin: dict[str, Any], since: str) -> None:
    answer = guarded.client.get("/admin/v1/usage", params={"since_ms": since}, headers=bearer(admin["key"]))
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed")
    assert since[:20] in answer.json()["error"]


def test_overview_tells_what_runs(guarded: Server, admin: dict[str, Any]) -> None:
    told = guarded.client.get("/admin/v1/overview", headers=bearer(admin["key"])).json()
    assert told["service"]["ready"] is True
    assert (told["service"]["auth"], told["service"]["charging"]) == (True, True)
    half = next(each for each in told["models"] if each["name"] == "half")
    assert (half["state"], half["engine"], half["format"]) == ("AVAILABLE", "onnx", "onnx")


# -- a full queue ------------------------------------------------------------------------------------------------------


def test_full_queue_is_answered_503_before_the_body(guarded: Server, acme: dict[str, Any]) -> None:
    line = f"authorization: Bearer {acme['key']}"
    slow = "/v1/models/slow:predict"
    wires = [guarded.connect() for _ in range(4)]
    for wire in wires:
        wire.send(post(slow, b'{"inputs": 3000}', line))
    eventually(lambda: guarded.in_flight == 4, "four are held")
    with guarded.connect() as wire:
        answer = wire.ask(headers_of(slow, 50_000, line))
        assert (answer.status, answer.code) == (503, "admission.overloaded")
        assert int(answer.header("retry-after") or 0) >= 1
    with guarded.connect() as wire:
        assert wire.ask(post(PREDICT, BODY, line)).status == 200  # another model is not touched
    for wire in wires:
        assert wire.answer().status == 200
        wire.socket.close()
    eventually(lambda: guarded.in_flight == 0, "nothing in flight")


def test_those_who_send_bodies_at_once_are_bounded_too(guarded: Server, acme: dict[str, Any]) -> None:
    """Twenty pass the judgement on their headers together; when their bodies are there, four may stay."""
    line = f"authorization: Bearer {acme['key']}"
    body = b'{"inputs": 1000}'
    wires = [guarded.connect() for _ in range(20)]
    for wire in wires:
        wire.send(headers_of("/v1/models/slow:predict", len(body), line))
    time.sleep(0.05)  # their heads have arrived; nothing tells when they were judged
    for wire in wires:
        wire.send(body)
    statuses = [wire.answer().status for wire in wires]
    for wire in wires:
        wire.socket.close()
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 4
    eventually(lambda: guarded.in_flight == 0, "nothing in flight")


def test_no_key_is_in_any_line_of_the_log(guarded: Server, acme: dict[str, Any], admin: dict[str, Any]) -> None:
    log = guarded.stderr()
    assert '"path":"/v1/models/half:predict"' in log
    for key in (acme["key"], admin["key"]):
        assert key not in log
        assert key.removeprefix("tm-") not in log
    assert "Traceback" not in log
