"""Asking the admin API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from fakes_admin import FakeAdmin, FakeModel, compressed, problem
from tidemill.console import format as form
from tidemill.console.api import KEEP_S, LOOK_S, POLLERS_MAX, REFUSED_INTERVAL_S, Poller, Pollers, State
from tidemill.console.pages import jobs
from tidemill.console.rates import requests_s


class FakeTime:
    """A clock that moves when somebody sleeps on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin([FakeModel("magika", requests=120)])


@pytest.fixture
async def http(admin: FakeAdmin) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(admin.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service/admin/v1/") as client:
        yield client


def poller(http: httpx.AsyncClient, time: FakeTime, key: str = "") -> Poller:
    return Poller(http, key, clock=time, wall=time, sleep=time.sleep)


async def until_it_stops(asking: Poller) -> None:
    while asking.asking:  # noqa: ASYNC110 - on a fake clock this takes no time
        await asyncio.sleep(0)


async def test_it_learns_the_overview_the_usage_and_the_rates(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    asking = poller(http, time)
    assert asking.view.state is State.WAITING
    await asking.ask()
    assert asking.view.state is State.LIVE
    assert asking.view.overview is not None
    assert asking.view.overview.models[0].requests == 120
    assert [row.calls for row in asking.view.usage] == [120]
    admin.models[0].answer(30)
    time.now += 1
    await asking.ask()
    assert requests_s(asking.history.recent()) == 30
    assert asking.view.revision == 2


async def test_it_learns_where_models_come_from_and_fetches_a_report(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    admin.lineages = [compressed()]
    admin.reports["minilm-int8"] = "<p>ü</p>"
    asking = poller(http, time)
    await asking.ask()
    (model,) = asking.view.lineage
    assert (model.key, model.of.name, model.size_ratio) == (("minilm-int8", 1), "minilm", 23_012_345 / 90_872_531)
    assert model.best_speed is not None
    assert model.best_speed.engine == "openvino"
    assert await asking.report("minilm-int8", 1) == ("<p>ü</p>", "")
    body, why = await asking.report("other/../x", 1)
    assert body == ""
    assert why


async def test_a_service_that_tells_no_lineage_still_shows_its_overview(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    admin.lineages = [{"name": "odd"}]
    asking = poller(http, time)
    await asking.ask()
    assert asking.view.state is State.LIVE
    assert asking.view.lineage == ()
    assert asking.view.lineage_message


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_a_refused_key_blanks_what_was_known(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime, key: str
) -> None:
    asking = poller(http, time, key)
    await asking.ask()
    admin.key = "right"
    await asking.ask()
    assert asking.view.state is State.REFUSED
    assert asking.view.message == ("this key is not known" if key else "no key was given")
    assert (asking.view.overview, asking.view.usage, list(asking.history.points)) == (None, (), [])
    right = poller(http, time, "right")
    await right.ask()
    assert right.view.state is State.LIVE


async def test_a_service_that_is_away_leaves_what_was_last_known_and_since_when(
    admin: FakeAdmin, time: FakeTime
) -> None:
    away = False

    async def answer(request: httpx.Request) -> httpx.Response:
        if away:
            raise httpx.ConnectError("refused", request=request)
        return await httpx.ASGITransport(admin.app).handle_async_request(request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://s/admin/v1/") as http:
        asking = poller(http, time)
        await asking.ask()
        away, answered = True, time.now
        for _ in range(3):
            time.now += 1
            await asking.ask()
        assert (asking.view.state, asking.view.since, asking.view.message) == (State.UNREACHABLE, answered, "refused")
        assert asking.view.overview is not None
        away = False
        await asking.ask()
        assert asking.view.state is State.LIVE


@pytest.mark.parametrize(
    "broken",
    [
        PlainTextResponse("hello"),
        JSONResponse({"models": "many"}),
        PlainTextResponse("", 404),
        problem("internal", "the disk is full", 500),
    ],
)
async def test_another_answer_is_told_and_not_trusted(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime, broken: PlainTextResponse
) -> None:
    asking = poller(http, time)
    admin.broken = broken
    await asking.ask()
    assert asking.view.state is State.STRANGE
    assert asking.view.message
    if broken.status_code == 500:
        assert "the disk is full" in asking.view.message


async def test_a_ledger_out_of_order_does_not_hide_the_overview(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    asking = poller(http, time)
    admin.broken_usage = problem("ledger.unavailable", "the disk is full", 503)
    await asking.ask()
    assert asking.view.state is State.LIVE
    assert "the disk is full" in asking.view.usage_message


async def test_the_index_is_read_and_a_service_without_one_does_not_hide_the_overview(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    asking = poller(http, time)
    await asking.ask()
    assert asking.view.state is State.LIVE
    assert "404" in asking.view.index_message
    admin.index = [{"name": "m", "policy": "all", "labels": {"a": 1}, "versions": [{"version": 1, "state": ""}]}]
    asking.refresh()
    await asking.ask()
    assert asking.view.index_message == ""
    assert [(each.name, each.labels) for each in asking.view.index] == [("m", {"a": 1})]


async def test_batches_are_told_with_how_far_they_are(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    asking = poller(http, time)
    job = {"id": "batch_0123456789abc", "tenant": "acme", "endpoint": "/v1/embeddings", "created_at": 1, "total": 0}
    counted = {"status": "in_progress", "total": 40, "completed": 10, "failed": 2}
    admin.jobs = [{**job, **counted}, {**job, "status": "validating", "completed": 0, "failed": 0}]
    await asking.ask()
    assert [row["done"] for row in jobs.rows(asking.view.jobs)] == ["12 of 40, 30 %", form.NOTHING]
    assert jobs.rows(asking.view.jobs)[0]["state"] == "in_progress"


async def test_a_newer_service_with_more_fields_is_read(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    service = {"version": "9", "started_at": 1, "uptime_s": 2, "ready": True, "colour": "blue"}
    admin.broken = JSONResponse({"service": service, "models": [{"name": "m", "version": 1, "state": "NEW", "x": 1}]})
    asking = poller(http, time)
    await asking.ask()
    assert asking.view.state is State.LIVE


async def test_it_stops_when_nobody_looks(http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime) -> None:
    asking = poller(http, time)
    asking.look()
    await until_it_stops(asking)
    assert admin.asked == LOOK_S
    asking.look()
    assert asking.asking
    await asking.stop()
    assert not asking.asking


async def test_a_refused_key_is_not_asked_with_every_second(
    http: httpx.AsyncClient, admin: FakeAdmin, time: FakeTime
) -> None:
    admin.key = "right"
    asking = poller(http, time)
    asking.look()
    await until_it_stops(asking)
    assert time.slept == [REFUSED_INTERVAL_S]


async def test_pages_with_one_key_share_a_poller(http: httpx.AsyncClient, time: FakeTime) -> None:
    pollers = Pollers(http, clock=time)
    assert pollers.of("a") is pollers.of("a")
    assert pollers.of("a") is not pollers.of("b")


async def test_keys_are_forgotten_and_never_more_than_so_many(http: httpx.AsyncClient, time: FakeTime) -> None:
    pollers = Pollers(http, clock=time)
    for guess in range(POLLERS_MAX * 2):
        time.now += 1
        pollers.of(str(guess))
    assert len(pollers) == POLLERS_MAX
    time.now += KEEP_S + 1
    pollers.of("a")
    assert len(pollers) == 1
