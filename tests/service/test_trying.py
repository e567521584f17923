"""`POST /admin/v1/models/{name}/try`: the whole way of `:predict`, for admin keys alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import Server, tidemill
from small_models import co2_table, publish, times

pytestmark = pytest.mark.slow

LARGE = {"instances": [[1.0]] * 20_000}
"""Larger than what the other admin calls take."""


def made(data: Path, tenant: str, *flags: str) -> str:
    return str(
        json.loads(tidemill("keys", "create", "--tenant", tenant, "--data-dir", data, "--json", *flags).stdout)["key"]
    )


class Asked:
    """One server with its keys."""

    def __init__(self, server: Server, admin: str, plain: str) -> None:
        self.server, self.admin, self.plain = server, admin, plain

    def ask(self, name: str, body: Any, key: str | None = None, version: str = "", **headers: str) -> httpx.Response:
        given = self.admin if key is None else key
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.server.client.post(
            f"/admin/v1/models/{name}/try",
            params={"version": version} if version else None,
            headers={**({"authorization": f"Bearer {given}"} if given else {}), **headers},
            **content,
        )

    def usage(self) -> list[tuple[Any, ...]]:
        told = self.server.client.get("/admin/v1/usage", headers={"authorization": f"Bearer {self.admin}"}).json()
        return [(row["tenant"], row["model"], row["version"], row["calls"], row["nanos"]) for row in told["rows"]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    models, data = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("data")
    for version in (1, 2):
        publish(models, "times", version, times(10.0 * version))
    (models / "tables" / "1").mkdir(parents=True)
    (models / "tables" / "1" / "tidemill.toml").write_text(co2_table(2))
    admin, plain = made(data, "operators", "--admin"), made(data, "acme")
    flags = ("--version-policy", "all", "--call-nanos", "7", "--body-bytes-max", "400000")
    with Server(models, data, *flags) as running:
        yield Asked(running, admin, plain)


def test_it_answers_as_predict_does_and_charges_the_tenant_of_the_key(asked: Asked) -> None:
    before = dict.fromkeys(asked.usage())
    answer = asked.ask("times", {"instances": [[3.0]]}, version="1")
    assert (answer.status_code, answer.json()) == (200, {"predictions": [[30.0]]})
    assert asked.ask("times", {"instances": [[3.0]]}).json() == {"predictions": [[60.0]]}
    assert answer.headers["x-request-id"]
    booked = [row for row in asked.usage() if row not in before]
    assert booked == [("operators", "times", 1, 1, 7), ("operators", "times", 2, 1, 7)]


def test_a_body_goes_by_its_content_type(asked: Asked) -> None:
    answer = asked.ask("tables", b"date,co2\n2001,3.5\n2002,4.5\n", **{"content-type": "text/csv"})
    assert [row["index"] for row in answer.json()["predictions"]] == ["2003", "2004"]
    answer = asked.ask("tables", b"x", **{"content-type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (415, "request.media")


def test_its_body_may_be_as_large_as_that_of_predict_and_no_larger(asked: Asked) -> None:
    answer = asked.ask("times", LARGE, version="1")
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 20_000
    assert asked.ask("times", b"x" * 400_001).json()["code"] == "request.too_large"


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("nobody", "", "model.unknown"),
        ("times", "9", "model.version_unknown"),
        ("times", "first", "model.version_unknown"),
        ("times", "1/../../x", "model.version_unknown"),
        ("times:classify", "", "model.unknown"),
    ],
)
def test_what_is_not_there_is_told_in_predicts_words(asked: Asked, name: str, version: str, code: str) -> None:
    answer = asked.ask(name, {"instances": [[1.0]]}, version=version)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_a_deadline_is_held(asked: Asked) -> None:
    answer = asked.ask("times", {"instances": [[1.0]]}, **{"x-request-timeout-ms": "0"})
    assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")


def test_it_wants_an_admin_key_and_refuses_foreign_pages(asked: Asked) -> None:
    before = asked.usage()
    body = {"instances": [[1.0]]}
    assert asked.ask("times", body, key="").json()["code"] == "key.missing"
    assert asked.ask("times", body, key="tm-nobody").json()["code"] == "key.invalid"
    assert asked.ask("times", body, key=asked.plain).json()["code"] == "key.forbidden"
    assert asked.ask("times", body, origin="http://elsewhere.example").json()["code"] == "key.forbidden"
    assert asked.server.client.get("/admin/v1/models/times/try").status_code == 405
    assert asked.usage() == before
