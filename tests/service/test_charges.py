"""Exactly one charge for each answered request, and none for a refused one."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serving import Server, eventually, post, tidemill
from tidemill.client import load


class Books:
    """One test's view of a server that books: tenants of its own, `acme` and `globex`, and what was booked for them."""

    def __init__(self, server: Server, admin_key: str) -> None:
        self.server = server
        self._mark = f"-{time.monotonic_ns()}"
        self.keys = {
            tenant: server.client.post(
                "/admin/v1/keys", json={"tenant": tenant + self._mark}, headers={"authorization": f"Bearer {admin_key}"}
            ).json()["key"]
            for tenant in ("acme", "globex")
        }

    def ask(self, body: Any = b'{"instances":[4.0]}', tenant: str = "acme", model: str = "half", **headers: str) -> int:
        return self.server.predict(model, body, authorization=f"Bearer {self.keys[tenant]}", **headers).status_code

    def rows(self) -> list[tuple[Any, ...]]:
        """id, tenant, model, version, request id, calls, rows, nanos"""
        with closing(sqlite3.connect(self.server.data_dir / "tidemill.db")) as connection:
            found = connection.execute("SELECT id, tenant, model, version, request_id, calls, rows, nanos FROM charges")
            return [(row[0], row[1].partition("-")[0], *row[2:]) for row in found if row[1].endswith(self._mark)]

    def usage(self, tenant: str, *flags: str) -> list[tuple[Any, ...]]:
        """model, calls, rows, nanos, as the command line tells them."""
        done = tidemill("usage", "--tenant", tenant + self._mark, "--json", "--data-dir", self.server.data_dir, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        return [(each["model"], each["calls"], each["rows"], each["nanos"]) for each in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def booking(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The server and its admin key."""
    folder = tmp_path_factory.mktemp("books")
    admin_key = tidemill("keys", "create", "--tenant", "operators", "--admin", "--data-dir", folder).stdout.strip()
    with Server(repository, folder, "--call-nanos", "250") as running:
        yield running, admin_key


@pytest.fixture
def books(booking: tuple[Server, str]) -> Books:
    return Books(*booking)


def test_usage_shows_one_charge_for_each_answer_and_none_for_a_refusal(books: Books) -> None:
    for _ in range(5):
        assert books.ask() == 200
    assert books.ask(b'{"instances":[1,2,3]}', tenant="globex") == 200
    assert books.ask(b'{"instances":[1,2,3]}', tenant="globex", model="poison") == 200
    for body in (b"{", b"", b'{"instances":["x"]}', b'{"instances":[1e39]}', b'{"wrong":1}'):
        assert books.ask(body) == 400
    assert books.ask(b'{"instances":[99]}', model="poison") == 400
    assert books.ask(model="nobody") == 404
    assert books.server.predict("half", b'{"instances":[1]}').status_code == 401
    assert books.ask(b'{"inputs":3000}', model="slow", **{"x-request-timeout-ms": "50"}) == 504
    assert books.usage("acme") == books.usage("acme", "--hours", "1") == [("half", 5, 5, 1250)]
    assert books.usage("globex") == [("half", 1, 3, 250), ("poison", 1, 3, 250)]


def test_usage_of_the_last_hours_only(books: Books) -> None:
    assert books.ask() == 200
    assert books.usage("acme", "--hours", "0") == []


@pytest.mark.parametrize("name", ["x-request-id", "idempotency-key"])
def test_same_id_with_the_same_body_is_charged_once_with_another_body_twice(books: Books, name: str) -> None:
    for _ in range(3):
        assert books.ask(**{name: "again"}) == 200
    assert len(books.rows()) == 1
    assert books.ask(b'{"instances":[5.0]}', **{name: "again"}) == 200
    assert len(books.rows()) == 2
    assert books.ask(tenant="globex", **{name: "again"}) == 200
    assert len(books.rows()) == 3


def test_idempotency_key_beats_the_request_id(books: Books) -> None:
    for number in range(3):
        assert books.ask(**{"idempotency-key": "one", "x-request-id": f"try-{number}"}) == 200
    rows = books.rows()
    assert [row[4] for row in rows] == ["try-0"]
    for number in range(2):
        assert books.ask(**{"idempotency-key": f"other-{number}", "x-request-id": "try"}) == 200
    assert len(books.rows()) == 3


def test_same_id_at_once_is_charged_once(books: Books) -> None:
    wires = [books.server.connect() for _ in range(20)]
    lines = (f"authorization: Bearer {books.keys['acme']}", "idempotency-key: together")
    for wire in wires:
        wire.send(post("/v1/models/poison:predict", b'{"instances":[1]}', *lines))
    statuses = {wire.answer().status for wire in wires}
    for wire in wires:
        wire.socket.close()
    assert 200 in statuses
    assert len(books.rows()) == 1


def test_both_doors_and_both_ids_book_the_model_and_version_that_answered(books: Books) -> None:
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
    headers = {"authorization": f"Bearer {books.keys['acme']}", "x-request-id": "mine"}
    assert books.server.infer("half", body, **headers).status_code == 200
    (row,) = books.rows()
    assert row[1:] == ("acme", "half", 1, "mine", 1, 1, 250)


def test_client_that_vanished_before_its_answer_is_charged_at_most_once(books: Books) -> None:
    line = f"authorization: Bearer {books.keys['acme']}"
    for number in range(5):
        wire = books.server.connect()
        wire.send(post("/v1/models/slow:predict", b'{"inputs": 3000}', line, f"x-request-id: gone-{number}"))
        eventually(lambda: books.server.in_flight >= 1, "it runs")
        wire.reset()
        eventually(lambda: books.server.in_flight == 0, "nothing in flight")
    assert len(books.rows()) <= 5
    assert books.ask(b'{"inputs": 1}', model="slow") == 200
    assert len({row[0] for row in books.rows()}) == len(books.rows())


async def test_under_load_every_answer_is_one_row(books: Books) -> None:
    answered: set[str] = set()
    result = await load.run(
        f"{books.server.url}/v1/models/half:predict",
        b'{"instances":[1.0]}',
        {"authorization": f"Bearer {books.keys['acme']}"},
        in_flight=2,
        requests=500,
        headers_of=lambda number: {"x-request-id": f"load-{number}"},
        on_answer=lambda answer: answered.add(f"load-{answer.number}") if answer.status == 200 else None,
    )
    assert result.lost == 0
    ids = [row[4] for row in books.rows()]
    assert sorted(ids) == sorted(answered)
    assert len(ids) == result.ok > 0


@pytest.mark.slow
def test_looking_at_the_books_while_the_server_runs_loses_nothing(books: Books) -> None:
    """Each look is another process that opens the database and closes it again."""
    for number in range(1, 4):
        assert books.ask() == 200
        assert len(books.rows()) == number
        assert books.usage("acme") == [("half", number, number, 250 * number)]


@pytest.mark.slow
def test_books_survive_a_stop(repository: Path, tmp_path: Path) -> None:
    def booked() -> int:
        told = json.loads(tidemill("usage", "--json", "--data-dir", tmp_path).stdout)
        return sum(each["calls"] for each in told)

    with Server(repository, tmp_path, "half", "--no-auth") as server:
        for _ in range(3):
            assert server.predict("half", {"instances": [1]}).status_code == 200
        assert server.stop() == 0
    assert booked() == 3
    with Server(repository, tmp_path, "half", "--no-auth") as again:
        assert again.predict("half", {"instances": [1]}).status_code == 200
        assert booked() == 4


def test_nothing_is_booked_where_nothing_is_charged(server: Server) -> None:
    assert server.predict("half", {"instances": [1]}).status_code == 200
    with closing(sqlite3.connect(server.data_dir / "tidemill.db")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM charges").fetchone() == (0,)


def test_an_empty_id_is_no_id(repository: Path, tmp_path: Path) -> None:
    """One name for all of them would make all but the first free."""
    with Server(repository, tmp_path, "half", "--no-auth") as server:
        for header in ("x-request-id", "idempotency-key"):
            for _ in range(3):
                assert server.predict("half", {"instances": [1.0]}, **{header: ""}).status_code == 200
        assert sum(row["calls"] for row in server.client.get("/admin/v1/usage").json()["rows"]) == 6
