"""What an operator does, against a service of a few lines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes_admin import problem
from tidemill.console import asking
from tidemill.console.acts import Acts
from tidemill.console.asking import Asking
from tidemill.console.guards import FORM_BYTES_MAX, Bounded, Headers

SEEN: list[tuple[str, str, bytes, str]] = []


async def answered(request: Request) -> Response:
    SEEN.append((request.method, str(request.url.path), await request.body(), request.headers.get("content-type", "")))
    name = request.path_params["name"]
    if name == "gone":
        return problem("model.unknown", "there is no model 'gone' any more", 404)
    if name == "page":
        return Response("<html>", 502)
    if name == "long":
        return Response(b"x" * 2000)
    return JSONResponse({"key": request.headers.get("authorization"), "version": request.query_params.get("version")})


@pytest.fixture
async def acts() -> AsyncIterator[Acts]:
    SEEN.clear()
    app = Starlette(routes=[Route("/admin/v1/models/{name}/{what:path}", answered, methods=["POST", "PUT"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service/admin/v1/") as http:
        yield Acts(Asking(http, "tm-key"))


async def test_each_act_asks_its_own_address(acts: Acts) -> None:
    assert await acts.load("a b/c") == ""
    assert await acts.unload("m") == ""
    assert await acts.label("m", "st/able", 3) == ""
    assert [(method, path, body) for method, path, body, _ in SEEN[1:]] == [
        ("POST", "/admin/v1/models/m/unload", b""),
        ("PUT", "/admin/v1/models/m/labels/st/able", b'{"version":3}'),
    ]


async def test_a_refusal_is_told_in_the_services_words(acts: Acts) -> None:
    assert await acts.load("gone") == "there is no model 'gone' any more (404)"
    assert await acts.unload("page") == "Bad Gateway (502)"


async def test_a_try_sends_the_bytes_as_their_type_under_the_key(acts: Acts) -> None:
    tried = await acts.attempt("m", 2, "image/png", b"\x89PNG")
    assert (tried.status, tried.message) == (200, "")
    assert tried.body == b'{"key":"Bearer tm-key","version":"2"}'
    assert SEEN == [("POST", "/admin/v1/models/m/try", b"\x89PNG", "image/png")]
    assert (await acts.attempt("m", None, "text/plain", b"x")).body.endswith(b'"version":null}')


async def test_an_answer_is_read_to_a_bound(acts: Acts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_BYTES_MAX", 1000)
    tried = await acts.attempt("long", None, "text/plain", b"x")
    assert (tried.status, tried.body) == (0, b"")
    assert "longer than 1000 bytes" in tried.message


async def test_a_service_that_is_away_is_told() -> None:
    async with asking.client("http://127.0.0.1:9") as http:
        acts = Acts(Asking(http))
        assert (await acts.load("m")).startswith("no answer: ")
        assert (await acts.attempt("m", None, "text/plain", b"x")).message


async def test_an_upload_is_bounded_before_it_is_read() -> None:
    async def taken(request: Request) -> Response:
        return Response(str(len(await request.body())))

    app = Starlette(routes=[Route("/", taken, methods=["GET", "POST"])])
    app.add_middleware(Bounded, bytes_max=1000)
    app.add_middleware(Headers)

    async def parts() -> AsyncIterator[bytes]:
        yield b"x"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console") as http:
        largest = 1000 + FORM_BYTES_MAX
        assert (await http.post("/", content=b"x" * largest)).text == str(largest)
        refused = await http.post("/", content=b"x" * (largest + 1))
        assert (refused.status_code, refused.headers["x-content-type-options"]) == (413, "nosniff")
        assert (await http.post("/", content=parts())).status_code == 411
        assert (await http.get("/")).status_code == 200
