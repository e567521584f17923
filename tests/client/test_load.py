"""The HTTP load generator against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from client.servers import echo, serving, whole
from tidemill.client import load
from tidemill.client.load import Answer, Retries

QUICK = Retries(attempts_max=3, delay_s=0.001, connect_s_max=2.0, answer_s_max=5.0)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_every_request_is_answered_over_as_many_connections_as_in_flight(echo_url: str) -> None:
    answers: list[Answer] = []
    result = await load.run(echo_url, b"hello", in_flight=4, requests=50, on_answer=answers.append)
    assert (result.sent, result.ok, result.lost, result.connects) == (50, 50, 0, 4)
    assert sorted(answer.number for answer in answers) == list(range(50))
    assert {answer.body for answer in answers} == {b"hello"}
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms


def test_it_runs_on_the_loop_that_the_service_uses() -> None:
    async def go() -> load.Result:
        async with serving(echo) as url, asyncio.timeout(10):
            return await load.run(url, b"hello", in_flight=4, requests=50)

    assert uvloop.run(go()).ok == 50


async def test_in_flight_is_kept_and_never_exceeded() -> None:
    """The server answers when eight wait, so with fewer in flight it would answer none."""
    waiting: list[asyncio.Event] = []
    most = 0

    async def answer_in_eights(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal most
        mine = asyncio.Event()
        waiting.append(mine)
        most = max(most, len(waiting))
        if len(waiting) == 8:
            while waiting:
                waiting.pop().set()
        await mine.wait()
        return await echo(head, body, writer)

    async with serving(answer_in_eights) as url:
        result = await load.run(url, b"x", in_flight=8, requests=40, retries=QUICK)
    assert (result.ok, most) == (40, 8)


async def test_each_request_carries_headers_of_its_own() -> None:
    seen: set[bytes] = set()

    async def note(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        assert b"\r\nauthorization: Bearer k\r\n" in head
        seen.add(head.split(b"x-request-id: ")[1].split(b"\r\n")[0])
        return await echo(head, body, writer)

    async with serving(note) as url:
        headers = {"authorization": "Bearer k"}
        await load.run(url, b"", headers, in_flight=2, requests=9, headers_of=lambda n: {"x-request-id": f"r{n}"})
    assert seen == {b"r%d" % number for number in range(9)}


async def test_a_run_of_seconds_ends(echo_url: str) -> None:
    result = await load.run(echo_url, b"", in_flight=2, seconds=0.05)
    assert result.ok == result.sent > 0
    assert result.wall_s >= 0.05


async def test_statuses_are_counted_and_a_closing_server_is_connected_again() -> None:
    async def refuse(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(whole(b"no", "503 Service Unavailable", "Connection: close"))
        await writer.drain()
        writer.close()
        return False

    async with serving(refuse) as url:
        result = await load.run(url, b"", in_flight=2, requests=6, retries=QUICK)
    assert (result.statuses, result.lost, result.connects) == ({503: 6}, 0, 6)


async def test_a_reset_loses_its_request_and_no_other() -> None:
    arrived = 0

    async def reset_each_fifth(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal arrived
        arrived += 1
        return False if arrived % 5 == 0 else await echo(head, body, writer)

    answers: list[Answer] = []
    async with serving(reset_each_fifth) as url:
        result = await load.run(url, b"x", in_flight=3, requests=50, on_answer=answers.append, retries=QUICK)
    assert (result.ok, result.lost, result.gave_up) == (40, 10, 0)
    assert sorted(answer.number for answer in answers) == list(range(50))
    assert all(answer.error for answer in answers if answer.status is None)
    assert arrived == 50, "a lost request is not sent again"


async def test_a_server_that_dies_and_comes_back_is_found_again() -> None:
    port = _free_port()
    enough, answers = asyncio.Event(), []

    def take(answer: Answer) -> None:
        answers.append(answer)
        if len(answers) == 20:
            enough.set()

    retries = Retries(attempts_max=500, delay_s=0.005)
    url = f"http://127.0.0.1:{port}/"
    async with asyncio.TaskGroup() as group:
        async with serving(echo, port):
            run = group.create_task(load.run(url, b"x", in_flight=2, requests=500, on_answer=take, retries=retries))
            await enough.wait()
        async with serving(echo, port):
            result = await run
    assert (result.sent, result.gave_up) == (500, 0)
    assert 0 < result.lost <= 2
    assert result.ok == 500 - result.lost


async def test_a_server_that_is_away_is_tried_a_bounded_number_of_times() -> None:
    result = await load.run(f"http://127.0.0.1:{_free_port()}/", b"", in_flight=2, requests=10, retries=QUICK)
    assert (result.sent, result.gave_up, result.connects_failed) == (0, 2, 2 * (QUICK.attempts_max + 1))


async def test_a_server_that_only_resets_is_tried_a_bounded_number_of_times() -> None:
    async def reset(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        return False

    async with serving(reset) as url:
        result = await load.run(url, b"", in_flight=1, requests=100, retries=QUICK)
    assert (result.lost, result.gave_up) == (QUICK.attempts_max + 1, 1)


async def test_an_answer_that_never_comes_is_given_up() -> None:
    async def silent(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        return True

    retries = Retries(attempts_max=3, delay_s=0.001, answer_s_max=0.02)
    async with serving(silent) as url:
        result = await load.run(url, b"", in_flight=1, requests=2, retries=retries)
    assert result.errors == {"timeout": 2}


async def test_what_is_not_http_is_lost() -> None:
    async def babble(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"220 mail.example\r\n\r\n")
        await writer.drain()
        return True

    async with serving(babble) as url:
        result = await load.run(url, b"", in_flight=1, requests=1, retries=QUICK)
    assert [error.split(":")[0] for error in result.errors] == ["bad answer"]


async def test_an_error_of_a_callback_ends_the_run(echo_url: str) -> None:
    def burst(answer: Answer) -> None:
        raise KeyError(answer.number)

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await load.run(echo_url, b"", in_flight=1, requests=1000, on_answer=burst)


async def test_a_cancelled_run_reports_nothing_more() -> None:
    arrived = asyncio.Event()

    async def silent(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        return True

    answers: list[Answer] = []
    async with serving(silent) as url:
        run = asyncio.create_task(load.run(url, b"", in_flight=1, requests=1, on_answer=answers.append))
        await arrived.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert answers == []
