"""Many requests and answers over one connection, with cancellation and back-pressure; used at both ends of a link.

Each end may ask. A stream belongs to whoever opened it: `Question` is the asker's end, `Asked` the other's. Life of a
peer: `open_peer`, any number of streams, `close` or the death of the other side, after which every stream raises
`LinkLost` and nothing is sent. Belongs to one loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol, cast

import msgspec

from tidemill.core.errors import LinkLost, Overloaded, TidemillError
from tidemill.wire.frames import JOINED_BYTES_MAX, Buffer, Frame, FrameError, FrameReader, Kind, pack
from tidemill.wire.problems import error_of, header_of

log = logging.getLogger(__name__)

STREAM_FRAMES_MAX: Final = 256
"""Frames of one stream that came and were not read; more end it."""
HEADER_BYTES_MAX: Final = 2**15
"""What is left of a frame for its header, where a payload is judged by its size alone."""
STREAMS: Final = 2**32
RETRY_AFTER_S: Final = 1.0

ASK, MORE, CANCEL = int(Kind.ASK), int(Kind.MORE), int(Kind.CANCEL)
PIECE, LAST, PROBLEM, TELL = int(Kind.PIECE), int(Kind.LAST), int(Kind.PROBLEM), int(Kind.TELL)


class Bounds(msgspec.Struct, frozen=True):
    """`in_flight_max` holds for what this end asks and, apart, for what it is asked."""

    frame_bytes_max: int
    in_flight_max: int
    buffer_bytes: int


class Handler(Protocol):
    """What is done with what the other side begins. Its methods are called on the loop and must not raise, but for
    `TidemillError` and `FrameError`."""

    def asked(self, stream: Asked, frame: Frame) -> None:
        """A stream was opened. Answer it with `stream.end` or `stream.fail`, now or later."""

    def told(self, frame: Frame) -> None: ...

    def lost(self) -> None:
        """The link has ended; streams were cancelled or failed before."""


class Stream:
    """One end of a stream: what arrived and was not read."""

    __slots__ = ("_failure", "_frames", "_peer", "_waiter", "number", "topic")

    def __init__(self, peer: Peer, number: int, topic: int) -> None:
        self.number = number
        self.topic = topic
        self._peer = peer
        self._frames: deque[Frame] | None = None
        self._waiter: asyncio.Future[Frame] | None = None
        self._failure: TidemillError | None = None

    async def next(self) -> Frame:
        """The next frame from the other end. Raises its error, `LinkLost` without it."""
        if self._frames:
            return self._frames.popleft()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        self._waiter = waiter = self._peer.loop.create_future()
        try:
            found: Frame = await waiter
            return found
        finally:
            self._waiter = None

    def arrived(self, frame: Frame) -> None:
        """Raises `Overloaded` for one too many that is not read."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(frame)
            return
        if self._frames is None:
            self._frames = deque()
        if len(self._frames) >= STREAM_FRAMES_MAX:
            raise Overloaded(f"{STREAM_FRAMES_MAX} parts of one answer wait to be read", retry_after_s=RETRY_AFTER_S)
        self._frames.append(frame)

    def ended(self, frame: Frame) -> None:
        """The last frame, for which there is always room."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(frame)
        elif self._frames is None:
            self._frames = deque((frame,))
        else:
            self._frames.append(frame)

    def failed(self, error: TidemillError) -> None:
        """Raise `error` at whoever reads, when what came before it has been read."""
        self._failure = error
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


class Question(Stream):
    """The asker's end. `close` when the answer is not wanted any more; of an ended stream that does nothing."""

    __slots__ = ()

    def more(self, header: bytes = b"") -> None:
        self._peer.send(MORE, self.topic, self.number, header)

    def close(self) -> None:
        if self._peer.forget(self.number):
            self._peer.send(CANCEL, self.topic, self.number)


class Asked(Stream):
    """The answerer's end. `task`, where the handler sets one, is cancelled when the asker cancels or is lost."""

    __slots__ = ("task",)

    def __init__(self, peer: Peer, number: int, topic: int) -> None:
        super().__init__(peer, number, topic)
        self.task: asyncio.Task[None] | None = None

    def piece(self, header: bytes, buffers: Sequence[Buffer] = (), size: int = 0) -> None:
        """Raises `FrameTooLarge`."""
        self._peer.send(PIECE, self.topic, self.number, header, buffers, size)

    def end(self, header: bytes = b"", buffers: Sequence[Buffer] = (), size: int = 0) -> None:
        """Raises `FrameTooLarge`; the stream is open then."""
        self._peer.send(LAST, self.topic, self.number, header, buffers, size)
        self._peer.answered(self.number)

    def fail(self, error: TidemillError) -> None:
        self._peer.send(PROBLEM, self.topic, self.number, header_of(error))
        self._peer.answered(self.number)

    @property
    def lost(self) -> bool:
        """Whether the asker is gone, with its end of the link."""
        return self._peer.lost

    @property
    def paused(self) -> bool:
        return self._peer.paused

    async def writable(self) -> None:
        """As `Peer.writable`."""
        await self._peer.writable()

    def cancelled(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Peer(asyncio.Protocol):
    """One end of a link."""

    def __init__(self, bounds: Bounds, handler: Handler) -> None:
        self.loop = asyncio.get_running_loop()
        self._bounds = bounds
        self._handler = handler
        self._reader = FrameReader(bounds.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._questions: dict[int, Question] = {}
        self._asked: dict[int, Asked] = {}
        self._number = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self.payload_bytes_max = bounds.frame_bytes_max - HEADER_BYTES_MAX
        self.paused = False
        """Whether so much is unsent that a sender of large things waits (`writable`)."""

    @property
    def asking(self) -> int:
        """Streams of this end that are open."""
        return len(self._questions)

    @property
    def answering(self) -> int:
        """Streams of the other end that are open."""
        return len(self._asked)

    @property
    def lost(self) -> bool:
        return self._transport is None

    def ask(self, topic: int, header: bytes, buffers: Sequence[Buffer] = (), size: int = 0) -> Question:
        """Open a stream. Raises `Overloaded` for one too many, `FrameTooLarge`, `LinkLost`."""
        questions = self._questions
        if len(questions) >= self._bounds.in_flight_max:
            raise Overloaded(
                f"this front waits for {len(questions)} answers, the most allowed (--link-in-flight-max)",
                retry_after_s=RETRY_AFTER_S,
            )
        number = self._number
        while number in questions:
            number = (number + 1) % STREAMS
        self._number = (number + 1) % STREAMS
        self.send(ASK, topic, number, header, buffers, size)
        question = questions[number] = Question(self, number, topic)
        return question

    def tell(self, topic: int, header: bytes = b"") -> None:
        """Say something that wants no answer. Raises `FrameTooLarge`, `LinkLost`."""
        self.send(TELL, topic, 0, header)

    async def writable(self) -> None:
        """Return when less than the bound is unsent. Raises `LinkLost`."""
        await self._writable.wait()
        if self._transport is None:
            raise gone()

    def close(self) -> None:
        """Send what waits to be sent, and hang up."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once, whatever waits."""
        if self._transport is not None:
            self._transport.abort()

    # -- what streams call ---------------------------------------------------------------------------------------------

    def send(
        self, kind: int, topic: int, number: int, header: bytes = b"", buffers: Sequence[Buffer] = (), size: int = 0
    ) -> None:
        transport = self._transport
        if transport is None:
            if kind == ASK:
                raise gone()
            return  # nobody is there to hear it
        parts = pack(kind, topic, number, header, buffers, size, self._bounds.frame_bytes_max)
        waiting = self._waiting
        if size > JOINED_BYTES_MAX:
            transport.writelines([*waiting, *parts])
            self._waiting, self._waiting_bytes = [], 0
            return
        if not waiting:
            self.loop.call_soon(self._flush)
        waiting.append(b"".join(parts))
        self._waiting_bytes += size
        if self._waiting_bytes > JOINED_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        """Write in one piece what was sent in this turn of the loop: a write costs more than a frame."""
        waiting = self._waiting
        if waiting and self._transport is not None:
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))
        self._waiting, self._waiting_bytes = [], 0

    def forget(self, number: int) -> bool:
        """Whether a question was still open."""
        return self._questions.pop(number, None) is not None

    def answered(self, number: int) -> None:
        self._asked.pop(number, None)

    # -- what the transport calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._bounds.buffer_bytes)

    def pause_writing(self) -> None:
        self.paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.paused = False
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except (FrameError, msgspec.DecodeError) as error:
            log.error("a link between processes is closed: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def _take(self, frame: Frame) -> None:
        """The commonest first."""
        kind = frame.kind
        if kind == ASK:
            self._take_question(frame)
        elif kind in (PIECE, LAST, PROBLEM):
            self._take_answer(kind, frame)
        elif kind == TELL:
            self._handler.told(frame)
        elif (asked := self._asked.get(frame.stream)) is not None:
            self._take_word(asked, kind, frame)

    def _take_answer(self, kind: int, frame: Frame) -> None:
        question = self._questions.get(frame.stream)
        if question is None:
            return  # it was closed meanwhile
        if kind == PIECE:
            try:
                question.arrived(frame)
            except Overloaded as error:
                question.failed(error)
                question.close()
            return
        del self._questions[frame.stream]
        if kind == LAST:
            question.ended(frame)
        else:
            question.failed(error_of(frame.header))

    def _take_word(self, asked: Asked, kind: int, frame: Frame) -> None:
        if kind == CANCEL:
            del self._asked[frame.stream]
            asked.cancelled()
            return
        try:
            asked.arrived(frame)
        except Overloaded as error:
            asked.fail(error)
            asked.cancelled()

    def _take_question(self, frame: Frame) -> None:
        number = frame.stream
        if number in self._asked:
            raise FrameError(f"stream {number} was opened twice")
        asked = self._asked[number] = Asked(self, number, frame.topic)
        try:
            if len(self._asked) > self._bounds.in_flight_max:
                raise Overloaded(f"{self._bounds.in_flight_max} requests of one front are under way")
            self._handler.asked(asked, frame)
        except TidemillError as error:
            asked.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.failed(gone())
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.failed(gone())
            each.cancelled()
        self._handler.lost()


def gone() -> LinkLost:
    return LinkLost("the process that was to answer has ended; try again", retry_after_s=RETRY_AFTER_S)


async def open_peer(end: socket.socket, bounds: Bounds, handler: Handler) -> Peer:
    """A peer over `end`, a connected Unix socket, which belongs to the peer from now on."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        end.setsockopt(socket.SOL_SOCKET, option, 2**20)
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_unix_connection(lambda: Peer(bounds, handler), sock=end)
    return peer
