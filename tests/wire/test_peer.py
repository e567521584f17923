"""A link between two peers over a true pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tidemill.core.errors import FrameTooLarge, LinkLost, Overloaded, TidemillError, UnknownModel, leaves
from tidemill.wire.frames import Frame
from tidemill.wire.peer import STREAM_FRAMES_MAX, Asked, Bounds, Peer, open_peer
from tidemill.wire.problems import error_of, header_of

BOUNDS = Bounds(frame_bytes_max=2**20, in_flight_max=64, buffer_bytes=2**16)
TOPIC = 5


class Echo:
    """Answers with what it was asked; `word` says how. Remembers what it was told, and whether the link was lost."""

    def __init__(self) -> None:
        self.word: Callable[[Asked, Frame], None] = lambda stream, frame: stream.end(
            frame.header, (frame.payload(),), frame.size
        )
        self.heard: list[bytes] = []
        self.gone = asyncio.Event()
        self.came = asyncio.Event()

    def asked(self, stream: Asked, frame: Frame) -> None:
        self.came.set()
        self.word(stream, frame)

    def told(self, frame: Frame) -> None:
        self.heard.append(frame.header)

    def lost(self) -> None:
        self.gone.set()


class Pair:
    """Two ends of one link, in one process."""

    def __init__(self, here: Peer, there: Peer, mine: Echo, theirs: Echo) -> None:
        self.here, self.there, self.mine, self.theirs = here, there, mine, theirs


@asynccontextmanager
async def linked(bounds: Bounds = BOUNDS) -> AsyncIterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX)
    mine, theirs = Echo(), Echo()
    here, there = await open_peer(left, bounds, mine), await open_peer(right, bounds, theirs)
    try:
        async with asyncio.timeout(20):
            yield Pair(here, there, mine, theirs)
    finally:
        here.close()
        there.close()
        await mine.gone.wait()
        await theirs.gone.wait()


async def asked(peer: Peer, header: bytes = b"", body: bytes = b"") -> Frame:
    question = peer.ask(TOPIC, header, (body,), len(body))
    try:
        return await question.next()
    finally:
        question.close()


async def test_many_questions_share_a_link() -> None:
    async with linked() as pair:
        answers = await asyncio.gather(*(asked(pair.here, b"%d" % n, bytes(n)) for n in range(60)))
        assert [answer.header for answer in answers] == [b"%d" % n for n in range(60)]
        assert [answer.size for answer in answers] == list(range(60))
        assert (pair.here.asking, pair.there.answering) == (0, 0)


async def test_both_ends_may_ask() -> None:
    async with linked() as pair:
        here, there = await asyncio.gather(asked(pair.here, b"1"), asked(pair.there, b"2"))
        assert (here.header, there.header) == (b"1", b"2")


async def test_large_frames_pass_whole_and_in_order() -> None:
    async with linked() as pair:
        bodies = [os.urandom(size) for size in (900_000, 1, 300_000, 70_000, 5)]
        answers = await asyncio.gather(*(asked(pair.here, b"", body) for body in bodies))
        assert [answer.payload() for answer in answers] == bodies


async def test_error_arrives_as_its_class_with_its_words() -> None:
    def refuse(stream: Asked, frame: Frame) -> None:
        raise UnknownModel("there is no model 'x'", retry_after_s=2.5)

    async with linked() as pair:
        pair.theirs.word = refuse
        with pytest.raises(UnknownModel, match="there is no model 'x'") as caught:
            await asked(pair.here)
        assert caught.value.retry_after_s == 2.5
        assert pair.here.asking == 0


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_keeps_its_code(kind: type[TidemillError]) -> None:
    assert error_of(header_of(kind("why \udc80"))).code == kind.code


async def test_pieces_and_words_in_between_go_both_ways() -> None:
    async def talk(stream: Asked) -> None:
        stream.piece(b"first")
        said = await stream.next()
        stream.end(b"heard " + said.header)

    tasks = []
    async with linked() as pair:
        pair.theirs.word = lambda stream, frame: tasks.append(asyncio.ensure_future(talk(stream)))
        question = pair.here.ask(TOPIC, b"")
        assert (await question.next()).header == b"first"
        question.more(b"go on")
        assert (await question.next()).header == b"heard go on"
        question.close()
        await asyncio.gather(*tasks)


async def test_leaving_cancels_the_other_side() -> None:
    stopped = asyncio.Event()

    async def never(stream: Asked) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def begin(stream: Asked, frame: Frame) -> None:
        stream.task = asyncio.ensure_future(never(stream))

    async with linked() as pair:
        pair.theirs.word = begin
        task = asyncio.ensure_future(asked(pair.here))
        await pair.theirs.came.wait()
        task.cancel()
        await stopped.wait()
        assert (pair.here.asking, pair.there.answering) == (0, 0)
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_answer_that_nobody_waits_for_is_dropped() -> None:
    streams: list[Asked] = []
    async with linked() as pair:
        pair.theirs.word = lambda stream, frame: streams.append(stream)
        question = pair.here.ask(TOPIC, b"")
        await pair.theirs.came.wait()
        question.close()
        streams[0].end(b"late")
        pair.theirs.word = lambda stream, frame: stream.end(b"well")
        assert (await asked(pair.here)).header == b"well"


async def test_death_of_the_other_side_fails_all_that_wait() -> None:
    async with linked() as pair:
        pair.theirs.word = lambda stream, frame: None
        waiting = [asyncio.ensure_future(asked(pair.here)) for _ in range(5)]
        await pair.theirs.came.wait()
        pair.there.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [LinkLost] * 5
        await pair.mine.gone.wait()
        assert pair.here.lost
        with pytest.raises(LinkLost):
            pair.here.ask(TOPIC, b"")
        with pytest.raises(LinkLost):
            await pair.here.writable()
        pair.here.tell(TOPIC, b"nobody is there")


async def test_one_question_too_many_is_refused_here() -> None:
    async with linked(Bounds(2**20, 3, 2**16)) as pair:
        pair.theirs.word = lambda stream, frame: None
        questions = [pair.here.ask(TOPIC, b"") for _ in range(3)]
        with pytest.raises(Overloaded, match="--link-in-flight-max"):
            pair.here.ask(TOPIC, b"")
        questions[0].close()
        pair.here.ask(TOPIC, b"").close()


async def test_one_question_too_many_is_refused_there() -> None:
    """The other side may have other bounds, or none that it keeps."""
    left, right = socket.socketpair(socket.AF_UNIX)
    mine, theirs = Echo(), Echo()
    here = await open_peer(left, BOUNDS, mine)
    there = await open_peer(right, Bounds(2**20, 2, 2**16), theirs)
    theirs.word = lambda stream, frame: None
    pending = [asyncio.ensure_future(asked(here)) for _ in range(3)]
    done, _ = await asyncio.wait(pending, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert [type(each.exception()) for each in done] == [Overloaded]
    here.close()
    await theirs.gone.wait()
    await asyncio.gather(*pending, return_exceptions=True)
    there.close()


async def test_question_that_is_too_large_opens_nothing() -> None:
    async with linked() as pair:
        body = bytes(BOUNDS.frame_bytes_max)
        with pytest.raises(FrameTooLarge):
            pair.here.ask(TOPIC, b"", (body,), len(body))
        assert pair.here.asking == 0
        assert (await asked(pair.here, b"still")).header == b"still"


async def test_sender_waits_while_the_other_side_does_not_read() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    here = await open_peer(left, BOUNDS, Echo())
    body = bytes(500_000)
    sent = 0
    while not here.paused:
        here.ask(TOPIC, b"", (body,), len(body))
        sent += len(body)
        await asyncio.sleep(0)
        assert sent < 50_000_000
    waiting = asyncio.ensure_future(here.writable())
    await asyncio.sleep(0)
    assert not waiting.done()
    loop = asyncio.get_running_loop()
    right.setblocking(False)
    while not waiting.done():
        await loop.sock_recv(right, 2**20)
    here.close()
    right.close()


async def test_garbage_ends_the_link_and_nothing_else() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    mine = Echo()
    here = await open_peer(left, BOUNDS, mine)
    question = here.ask(TOPIC, b"")
    right.sendall(os.urandom(4096).replace(b"\1", b"\2"))
    await asyncio.wait_for(mine.gone.wait(), 20)
    with pytest.raises(LinkLost):
        await question.next()
    right.close()


async def test_pieces_that_nobody_reads_do_not_pile_up() -> None:
    def flood(stream: Asked, frame: Frame) -> None:
        for _ in range(STREAM_FRAMES_MAX + 1):
            stream.piece(b"more")

    async with linked() as pair:
        pair.theirs.word = flood
        question = pair.here.ask(TOPIC, b"")
        await pair.theirs.came.wait()
        await asked(pair.there)  # what was sent before this has arrived
        for _ in range(STREAM_FRAMES_MAX):
            assert (await question.next()).header == b"more"
        with pytest.raises(Overloaded, match="wait to be read"):
            await question.next()
        pair.theirs.word = lambda stream, frame: stream.end(b"others go on")
        assert (await asked(pair.here)).header == b"others go on"
