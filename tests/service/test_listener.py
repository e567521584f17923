"""The listener against those who are too large, too slow, too many, or gone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Reply, Server, Wire, eventually, headers_of, post, quiet_after

PREDICT = "/v1/models/half:predict"
BODY = b'{"instances":[4.0]}'
ANSWER = b'{"predictions":[2.0]}'
BODY_BYTES_MAX = 100_000
HEADER_BYTES_MAX = 4096
LIMITS = [
    "--no-auth",
    "--no-charge",
    "--header-bytes-max",
    str(HEADER_BYTES_MAX),
    "--header-timeout-ms",
    "200",
    "--body-idle-ms",
    "200",
    "--keep-alive-ms",
    "400",
    "--body-timeout-ms",
    "1500",
    "--body-bytes-max",
    str(BODY_BYTES_MAX),
    "--connections-max",
    "40",
]


@pytest.fixture(scope="module")
def small(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    with Server(repository, tmp_path_factory.mktemp("data"), *LIMITS) as running:
        yield running


def refused(answer: Reply, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    assert json.loads(answer.body).keys() == {"error", "code"}
    assert answer.header("connection") == "close"
    assert answer.header("x-request-id")
    assert answer.header("content-length") == str(len(answer.body))


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x-pad: %b\r\n" % (b"p" * 9000) + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 3000 + b"\r\n",
        b"GET /" + b"p" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 3000,
        b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 9000,
        b"GET /" + b"p" * 9000,
        post(PREDICT, BODY, "x: " + "y" * HEADER_BYTES_MAX),
    ],
    ids=["one long", "many", "long path", "no end", "no end of a line", "no end of a path", "with a body"],
)
def test_a_flood_of_headers_is_answered_431(small: Server, head: bytes) -> None:
    with quiet_after(small), small.connect() as wire:
        refused(wire.ask(head), 431, "request.headers_too_large")
        assert wire.closed


def test_headers_within_the_limit_beside_a_large_body_pass(small: Server) -> None:
    body = BODY + b" " * (BODY_BYTES_MAX - len(BODY))
    with small.connect() as wire:
        assert wire.ask(post(PREDICT, body, "x: " + "y" * (HEADER_BYTES_MAX - 200))).body == ANSWER


def test_flood_of_headers_after_a_good_request(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        assert wire.ask(post(PREDICT, BODY)).status == 200
        refused(wire.ask(b"GET / HTTP/1.1\r\nx: " + b"y" * 9000), 431, "request.headers_too_large")


def test_flood_of_headers_behind_a_request_under_way_is_not_kept(small: Server) -> None:
    """Forty megabytes of headers behind a slow request: they are refused or left unread, in any case not kept."""
    name = "tidemill_process_resident_bytes"
    with quiet_after(small), small.connect() as wire:
        wire.send(post("/v1/models/slow:predict", b'{"inputs": 8000}'))
        eventually(lambda: small.in_flight == 1, "the slow one runs")
        before = small.metrics()[name]
        wire.socket.settimeout(0.3)
        wire.send(b"GET / HTTP/1.1\r\n")
        for _ in range(40):
            wire.send(b"x: " + b"y" * 2**20 + b"\r\n")
        assert small.metrics()[name] - before < 20 * 2**20


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nhost: x\r\n"], ids=["silence", "a word", "no end"])
def test_slow_headers_are_answered_408(small: Server, begun: bytes) -> None:
    with small.connect() as wire:
        refused(wire.ask(begun), 408, "request.too_slow")
        assert wire.closed


@pytest.mark.parametrize("first", [b"", post(PREDICT, BODY)], ids=["first", "second"])
def test_dripping_headers_does_not_buy_time(small: Server, first: bytes) -> None:
    """Whether they are those of a connection's first request or of a later one."""
    with small.connect() as wire:
        if first:
            assert wire.ask(first).status == 200
        wire.send(b"GET / HTTP/1.1\r\nx: ")
        wire.socket.settimeout(0.03)
        for _ in range(100):
            wire.send(b"y")
            try:
                answer = wire.answer()
            except TimeoutError:
                continue
            refused(answer, 408, "request.too_slow")
            return
    pytest.fail("still listening after three seconds")


@pytest.mark.parametrize(
    "begun",
    [
        headers_of(PREDICT, 100) + b'{"instances"',
        headers_of(PREDICT, 100),
        f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{".encode(),
        headers_of("/admin/v1/keys", 100) + b"{",
    ],
    ids=["some", "none", "chunked", "admin"],
)
def test_slow_body_is_answered_408(small: Server, begun: bytes) -> None:
    with quiet_after(small), small.connect() as wire:
        refused(wire.ask(begun), 408, "request.too_slow")
        assert wire.closed


def test_body_that_keeps_coming_is_waited_for(small: Server) -> None:
    """Slow as it is, it is never silent for as long as the limit, and whole within the time for all of it."""
    with small.connect() as wire:
        wire.send(headers_of(PREDICT, len(BODY)))
        for at in range(0, len(BODY), 3):
            time.sleep(0.05)
            wire.send(BODY[at : at + 3])
        assert wire.answer().body == ANSWER


@pytest.mark.parametrize("first", [b"", post(PREDICT, BODY)], ids=["first", "second"])
@pytest.mark.parametrize(
    "begun",
    [
        headers_of(PREDICT, 1000),
        f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3E8\r\n".encode(),
        headers_of("/v1/chat/completions", 1000),
    ],
    ids=["told", "chunked", "chat"],
)
def test_dripping_a_body_does_not_buy_time(small: Server, begun: bytes, first: bytes) -> None:
    """A byte every 0.05 s is never silent; a thousand of them would take fifty seconds."""
    with quiet_after(small), small.connect() as wire:
        if first:
            assert wire.ask(first).status == 200
        started = time.monotonic()
        wire.send(begun)
        wire.socket.settimeout(0.05)
        while time.monotonic() - started < 20:
            wire.send(b" ")
            try:
                answer = wire.answer()
            except TimeoutError:
                continue
            assert time.monotonic() - started > 1.4
            assert (answer.status, answer.code) == (408, "request.too_slow")
            assert b"--body-timeout-ms" in answer.body
            assert wire.closed
            return
    pytest.fail("still listening after twenty seconds")


def test_bodies_that_follow_one_another_each_have_their_time(small: Server) -> None:
    """More of them than would fit into the time of one, each on its way for long enough to be seen."""
    with small.connect() as wire:
        started = time.monotonic()
        while time.monotonic() - started < 2.5:
            wire.send(headers_of(PREDICT, len(BODY)) + BODY[:3])
            time.sleep(0.1)
            assert wire.ask(BODY[3:]).body == ANSWER


def test_a_caller_s_time_runs_while_the_body_is_on_its_way(small: Server) -> None:
    with small.connect() as wire:
        wire.send(headers_of(PREDICT, len(BODY), "x-request-timeout-ms: 120"))
        for at in range(0, len(BODY), 3):
            time.sleep(0.03)
            wire.send(BODY[at : at + 3])
        answer = wire.answer()
        assert (answer.status, answer.code) == (504, "request.deadline")


def test_a_long_answer_is_no_silence(small: Server) -> None:
    """Nobody speaks for longer than every limit while the model works, and nobody is hung up on."""
    with small.connect() as wire:
        answer = wire.ask(post("/v1/models/slow:predict", b'{"inputs": 7000}'))
        assert answer.status == 200


def test_idle_connection_is_closed_without_a_word(small: Server) -> None:
    with small.connect() as wire:
        assert wire.ask(post(PREDICT, BODY)).status == 200
        started = time.monotonic()
        assert wire.closed
        assert 0.2 < time.monotonic() - started < 5


# -- size --------------------------------------------------------------------------------------------------------------


def test_body_over_the_limit_is_refused_by_its_announcement(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        answer = wire.ask(headers_of(PREDICT, BODY_BYTES_MAX + 1))
        refused(answer, 413, "request.too_large")
        assert str(BODY_BYTES_MAX + 1).encode() in answer.body
        assert wire.closed


def test_body_over_the_limit_in_chunks(small: Server) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with quiet_after(small), small.connect() as wire:
        wire.send(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode() + chunk * 8)
        refused(wire.answer(), 413, "request.too_large")
        assert wire.closed


def test_body_at_the_limit_is_read(small: Server) -> None:
    with small.connect() as wire:
        assert wire.ask(post(PREDICT, BODY + b" " * (BODY_BYTES_MAX - len(BODY)))).body == ANSWER


@pytest.mark.parametrize("path", ["/admin/v1/keys", "/v2/health/live", "/nowhere"])
def test_large_body_where_none_belongs(small: Server, path: str) -> None:
    with quiet_after(small), small.connect() as wire:
        assert wire.ask(post(path, b" " * 80_000)).status in (404, 405, 413)


# -- what is no HTTP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,
        b"hello\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"SSH-2.0-client\r\n",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_garbage_is_answered_400(small: Server, garbage: bytes) -> None:
    with quiet_after(small), small.connect() as wire:
        refused(wire.ask(garbage), 400, "request.malformed")
        assert wire.closed


def test_garbage_behind_a_good_request(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        assert wire.ask(post(PREDICT, BODY)).body == ANSWER
        refused(wire.ask(b"\0garbage\r\n\r\n"), 400, "request.malformed")


def test_garbage_behind_a_request_under_way_does_not_spoil_its_answer(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        wire.send(post("/v1/models/slow:predict", b'{"inputs": 500}'))
        eventually(lambda: small.in_flight == 1, "the slow one runs")
        wire.send(b"\0garbage\r\n\r\n")
        answer = wire.answer()
        assert answer.status in (200, 400)


def test_upgrade_is_not_taken(small: Server) -> None:
    lines = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x"
    with quiet_after(small), small.connect() as wire:
        answer = wire.ask(f"GET /healthz HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n".encode())
        assert answer.status in (200, 400)


def test_100_continue_is_sent_to_those_who_wait_for_it(small: Server) -> None:
    with small.connect() as wire:
        wire.send(headers_of(PREDICT, len(BODY), "expect: 100-continue"))
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.ask(BODY).body == ANSWER


def test_http_1_0_is_answered_and_closed(small: Server) -> None:
    with small.connect() as wire:
        answer = wire.ask(f"POST {PREDICT} HTTP/1.0\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)
        assert answer.body == ANSWER
        assert wire.closed


def test_connection_close_is_kept(small: Server) -> None:
    with small.connect() as wire:
        answer = wire.ask(post(PREDICT, BODY, "connection: close"))
        assert (answer.body, answer.header("connection")) == (ANSWER, "close")
        assert wire.closed


def test_pipelined_requests_are_answered_in_order(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        bodies = [json.dumps({"instances": [float(number)]}).encode() for number in range(40)]
        wire.send(b"".join(post(PREDICT, body) for body in bodies))
        for number in range(40):
            assert json.loads(wire.answer().body) == {"predictions": [number / 2]}


def test_bodies_that_come_in_pieces_stay_with_their_requests(small: Server) -> None:
    """The end of one body, a whole request, and the beginning of the next, in one piece."""
    with quiet_after(small), small.connect() as wire:
        sent = [post(PREDICT, json.dumps({"instances": [float(number)] * 5000}).encode()) for number in range(6)]
        whole = b"".join(sent)
        for start in range(0, len(whole), 7001):
            wire.send(whole[start : start + 7001])
        for number in range(6):
            assert json.loads(wire.answer().body) == {"predictions": [number / 2] * 5000}


def test_pipelined_requests_behind_a_slow_one_wait_their_turn(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        wire.send(post("/v1/models/slow:predict", b'{"inputs": 800}') + post(PREDICT, BODY) + post("/nowhere", b""))
        assert [wire.answer().status for _ in range(3)] == [200, 200, 404]


def test_pipelined_requests_with_refusals_between(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        wire.send((post(PREDICT, b"{") + post(PREDICT, BODY) + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") * 10)
        assert [wire.answer().status for _ in range(30)] == [400, 200, 200] * 10


def test_request_in_single_bytes(small: Server) -> None:
    with small.connect() as wire:
        for byte in post(PREDICT, BODY):
            wire.send(bytes([byte]))
        assert wire.answer().body == ANSWER


# -- those who go away -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("sent", ["half a head", "a head", "half a body", "all"])
def test_client_that_vanishes_leaves_nothing_behind(small: Server, way: str, sent: str) -> None:
    whole = post("/v1/models/slow:predict", b'{"inputs": 300}')
    head = whole.index(b"\r\n\r\n") + 4
    data = whole[: {"half a head": 30, "a head": head, "half a body": head + 5, "all": len(whole)}[sent]]
    with quiet_after(small):
        for _ in range(10):
            wire = small.connect()
            wire.send(data)
            if sent == "all":
                eventually(lambda: small.in_flight > 0, "it runs")
            if way == "reset":
                wire.reset()
            else:
                wire.socket.close()


def test_cancelled_requests_that_wait_are_not_computed(small: Server) -> None:
    """Behind a slow one, twenty wait and vanish: the model answers the slow one only."""
    name = 'tidemill_compute_seconds_count{model="slow",version="1"}'
    with quiet_after(small), small.connect() as first:
        before = small.metrics()[name]
        first.send(post("/v1/models/slow:predict", b'{"inputs": 3000}'))
        eventually(lambda: small.in_flight == 1, "the first runs")
        waiting = [small.connect() for _ in range(20)]
        for wire in waiting:
            wire.send(post("/v1/models/slow:predict", b'{"inputs": 3000}'))
        eventually(lambda: small.in_flight == 21, "all wait")
        for wire in waiting:
            wire.reset()
        eventually(lambda: small.in_flight == 1, "the waiting ones are forgotten")
        assert first.answer().status == 200
        # One that an earlier test left running may have ended meanwhile.
        assert small.metrics()[name] <= before + 2


def test_client_that_does_not_read_is_hung_up_on(repository: Path, tmp_path: Path) -> None:
    """An answer larger than every buffer on the way, to somebody who does not take it."""
    body = b'{"inputs":' + str([float(i) for i in range(400_000)]).encode() + b"}"
    flags = ("half", "--no-auth", "--no-charge", "--body-idle-ms", "300")
    with Server(repository, tmp_path, *flags) as server, quiet_after(server):
        wire = server.connect()
        for _ in range(4):
            wire.send(post(PREDICT, body))
        eventually(lambda: server.metrics()["tidemill_connections"] == 1, "the deaf one is gone")
        wire.socket.close()


def test_client_that_reads_slowly_gets_all(repository: Path, small: Server) -> None:
    body = b'{"inputs":' + str([0.25] * 15_000).encode().replace(b" ", b"") + b"}"
    with quiet_after(small), small.connect() as wire:
        for _ in range(20):
            wire.send(post(PREDICT, body))
            time.sleep(0.01)
        for _ in range(20):
            answer = wire.answer()
            assert answer.status == 200
            assert len(json.loads(answer.body)["outputs"]) == 15_000


# -- the same head again -----------------------------------------------------------------------------------------------


def test_same_head_again_is_answered_by_its_own_body(small: Server) -> None:
    with small.connect() as wire:
        for number in (1, 2, 3, 4):
            answer = wire.ask(post(PREDICT, b'{"inputs": [%d]}' % number))
            assert json.loads(answer.body)["outputs"] == [number / 2]


def test_same_head_again_however_it_is_cut_and_joined(small: Server) -> None:
    """Two at once, one in pieces, one with another head between: each as if it were the first."""
    one, two = (post(PREDICT, b'{"inputs": [%d]}' % number) for number in (1, 2))
    longer = post(PREDICT, b'{"inputs": [2.50]}')
    with small.connect() as wire:
        assert wire.ask(one).status == 200
        wire.send(one + two)
        wire.send(longer[:70])
        assert [json.loads(wire.answer().body)["outputs"] for _ in range(2)] == [[0.5], [1.0]]
        wire.send(longer[70:])
        assert json.loads(wire.answer().body)["outputs"] == [1.25]
        for cut in (1, 30, len(two) - 1):
            assert json.loads(wire.ask(one).body)["outputs"] == [0.5]
            wire.send(two[:cut])
            time.sleep(0.01)
            assert json.loads(wire.ask(two[cut:]).body)["outputs"] == [1.0]


def test_same_head_with_a_body_that_is_none_is_refused_and_the_next_is_well(small: Server) -> None:
    with small.connect() as wire:
        assert wire.ask(post(PREDICT, b'{"inputs": [1]}')).status == 200
        assert wire.ask(post(PREDICT, b'{"inputs": [x]}')).status == 400
        assert wire.ask(post(PREDICT, b'{"inputs": [4]}')).status == 200


# -- too many ----------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_most_are_closed_and_those_within_are_served(small: Server) -> None:
    eventually(lambda: small.metrics()["tidemill_connections"] == 1, "only our own is open")
    wires: list[Wire] = []
    for _ in range(39):
        wire = small.connect()
        assert wire.ask(post(PREDICT, BODY)).status == 200
        wires.append(wire)
    with small.connect() as one_more:
        assert one_more.closed
    assert wires[0].ask(post(PREDICT, BODY)).status == 200
    for wire in wires:
        wire.socket.close()
    eventually(lambda: small.metrics()["tidemill_connections"] == 1, "all are closed")
    with small.connect() as wire:
        assert wire.ask(post(PREDICT, BODY)).status == 200


def test_refusals_are_counted(small: Server) -> None:
    counted = small.metrics()
    for code in ("request.headers_too_large", "request.too_slow", "request.malformed"):
        assert counted[f'tidemill_failures_total{{code="{code}",model=""}}'] > 0


def test_nothing_was_unforeseen(small: Server) -> None:
    strange = [line for line in small.stderr().splitlines() if "Traceback" in line or "not foreseen" in line]
    assert strange == []


def test_refusal_before_the_body_came_leaves_the_connection_in_step(small: Server) -> None:
    """The rest of the refused body is read and dropped; the next request gets its own answer."""
    body = b'{"instances": [' + b"1, " * 20_000 + b"1]}"
    with quiet_after(small), small.connect() as wire:
        wire.send(headers_of("/v1/models/nobody:predict", len(body)))
        assert wire.answer().status == 404
        wire.send(body[:30_000])
        wire.send(body[30_000:] + post(PREDICT, b'{"instances": [4]}'))
        answer = wire.answer()
        assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2.0]})


def test_trailers_are_no_headers(small: Server) -> None:
    chunk = b'{"instances": [4]}'
    with quiet_after(small), small.connect() as wire:
        head = headers_of(PREDICT, 0, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
        wire.send(head + b"%x\r\n" % len(chunk) + chunk + b"\r\n0\r\nx-request-id: trailer\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.header("x-request-id") == "trailer") == (200, False)


def test_offer_of_another_protocol_is_answered_in_this_one(small: Server) -> None:
    lines = ("connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "http2-settings: AAMAAABk")
    with quiet_after(small), small.connect() as wire:
        answer = wire.ask(post(PREDICT, b'{"instances": [4]}', *lines))
        assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [2.0]})


def test_client_that_asks_before_sending_its_body_is_hung_up_on_when_refused(small: Server) -> None:
    with quiet_after(small), small.connect() as wire:
        wire.send(headers_of("/v1/models/nobody:predict", 100, "expect: 100-continue"))
        assert wire.answer().status == 404
        assert wire.closed
