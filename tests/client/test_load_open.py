"""The open loop: what falls due is sent, its wait counts, and the server's pace does not set the load's."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import uvloop

from client.servers import echo, serving, whole
from tidemill.client import load_open
from tidemill.client.alarm import Alarm
from tidemill.client.load_open import Answer, Retries
from tidemill.core.errors import InvalidSetting

QUICK = Retries(attempts_max=3, delay_s=0.001, connect_s_max=2.0, answer_s_max=5.0)


async def test_every_arrival_is_sent_and_answered(echo_url: str) -> None:
    answers: list[Answer] = []
    arrivals = [0.001 * place for place in range(40)]
    result = await load_open.run(echo_url, b"hello", arrivals=arrivals, connections=4, on_answer=answers.append)
    assert (result.sent, result.ok, result.unsent, result.lost) == (40, 40, 0, 0)
    assert sorted(answer.number for answer in answers) == list(range(40))
    assert result.wall_s >= arrivals[-1]
    assert len(result.late_s) == 40
    assert min(result.late_s) >= 0


def test_it_runs_on_the_loop_that_the_service_uses() -> None:
    async def go() -> load_open.Result:
        async with serving(echo) as url, asyncio.timeout(10):
            return await load_open.run(url, b"hello", arrivals=[0.0, 0.002, 0.004], connections=2)

    assert uvloop.run(go()).ok == 3


async def test_bodies_are_sent_in_turn(echo_url: str) -> None:
    answers: list[Answer] = []
    await load_open.run(echo_url, [b"a", b"bb"], arrivals=[0.0] * 6, connections=3, on_answer=answers.append)
    assert {(answer.number % 2, answer.body) for answer in answers} == {(0, b"a"), (1, b"bb")}


async def test_a_wait_for_a_free_connection_counts_into_the_latency() -> None:
    """Goal: no coordinated omission. Method: one connection, all due at once; the server lets one go at a time, so the
    last one's latency is the sum of all that went before."""
    began: list[float] = []

    async def slow(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        began.append(time.perf_counter())
        await asyncio.sleep(0.01)
        return await echo(head, body, writer)

    async with serving(slow) as url:
        result = await load_open.run(url, b"x", arrivals=[0.0] * 5, connections=1, retries=QUICK)
    assert result.ok == 5
    assert list(result.latencies_s) == sorted(result.latencies_s)
    assert result.latencies_s[-1] >= began[-1] - began[0]


async def test_what_no_connection_could_carry_in_time_is_told_as_unsent() -> None:
    async def stuck(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        return await echo(head, body, writer)

    async with serving(stuck) as url:
        result = await load_open.run(url, b"x", arrivals=[0.0] * 4, connections=1, grace_s=0.01, retries=QUICK)
    assert (result.sent, result.ok, result.unsent) == (1, 1, 3)


async def test_statuses_are_counted_and_good_latencies_kept_apart() -> None:
    seen = 0

    async def each_second(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal seen
        seen += 1
        writer.write(whole(b"no", "503 Service Unavailable") if seen % 2 else whole(b"ok"))
        await writer.drain()
        return True

    async with serving(each_second) as url:
        result = await load_open.run(url, b"", arrivals=[0.0] * 6, connections=1, retries=QUICK)
    assert result.statuses == {200: 3, 503: 3}
    assert (len(result.latencies_s), len(result.ok_latencies_s)) == (6, 3)


async def test_a_server_that_is_away_leaves_all_unsent() -> None:
    async with serving(echo) as url:
        pass
    result = await load_open.run(url, b"", arrivals=[0.0, 0.001], connections=2, retries=QUICK)
    assert (result.sent, result.unsent, result.gave_up) == (0, 2, 2)


async def test_an_error_of_a_callback_ends_the_run(echo_url: str) -> None:
    def burst(answer: Answer) -> None:
        raise KeyError(answer.number)

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await load_open.run(echo_url, b"", arrivals=[0.0, 30.0], connections=1, on_answer=burst)


async def test_a_cancelled_run_closes_its_connections() -> None:
    arrived, hung_up = asyncio.Event(), asyncio.Event()

    watched: list[asyncio.Task[None]] = []

    async def silent(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        watched.append(asyncio.create_task(_closed(writer, hung_up)))
        arrived.set()
        return True

    async with serving(silent) as url, asyncio.timeout(10):
        run = asyncio.create_task(load_open.run(url, b"", arrivals=[0.0, 60.0], connections=1))
        await arrived.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await hung_up.wait()


async def _closed(writer: asyncio.StreamWriter, hung_up: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    hung_up.set()


@pytest.mark.parametrize(("arrivals", "connections"), [([], 1), ([1.0, 0.5], 1), ([-1.0], 1), ([0.0], 0)])
async def test_a_schedule_that_means_nothing_is_refused(arrivals: list[float], connections: int) -> None:
    with pytest.raises(InvalidSetting):
        await load_open.run("http://127.0.0.1:1/", arrivals=arrivals, connections=connections)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_alarm_rings_once_and_not_before_its_time(run: object) -> None:
    async def go() -> float:
        rung = asyncio.Event()
        alarm = Alarm(rung.set)
        try:
            alarm.set(time.perf_counter() + 60)
            wanted = time.perf_counter() + 0.003
            alarm.set(wanted)  # the last one counts
            async with asyncio.timeout(10):
                await rung.wait()
            early = wanted - time.perf_counter()
            rung.clear()
            alarm.set(0.0)  # what is past rings at once
            async with asyncio.timeout(10):
                await rung.wait()
            return early
        finally:
            alarm.close()

    assert run(go()) <= 0  # type: ignore[operator]
