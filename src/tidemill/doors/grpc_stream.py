"""A gRPC stream of questions and answers: each message is a call of its own; runs on the owner's loop.

Answers go out in the order of their questions. So many are under way at once, and no further message is read until
the first of them has been answered: a client that sends without reading fills gRPC's own window and then waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import grpc

from tidemill.core.errors import Draining, TidemillError
from tidemill.doors import way
from tidemill.doors.grpc_call import Call, Calls, Method, begin_span, end_span, refuse, tell_access
from tidemill.observe.log import REQUEST_ID

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Told: TypeAlias = Callable[[Call, TidemillError], bytes]
"""How the dialect says in the stream that the question of a call was refused."""


def stream_handler(calls: Calls, method: Method, told: Told, *, keyless: bool = False) -> grpc.RpcMethodHandler:
    """`method`, which answers one message, for a stream of them. What refuses the stream itself ends it with a status,
    what refuses a message is `told` in the stream."""

    async def handle(_: object, context: Context) -> None:
        opening = Call()
        refused: TidemillError | None = None
        ended = False
        began = calls.began()
        stream = _Stream(calls, method, told, opening, context, keyless)
        calls.in_flight += 1
        try:
            calls.read_head(opening, context)
            if not keyless:
                opening.caller = calls.service.identity.recognise(opening.credential)
            await stream.run()
            if calls.ending.is_set():
                refused = Draining("this server is going down; stream to another", retry_after_s=1.0)
            ended = True
        except TidemillError as error:
            refused = calls.refusal(opening, error)
            ended = True
        finally:
            calls.in_flight -= 1
            if began:
                tell_access(handle, began, ended, refused, messages=stream.read, refused_messages=stream.refused)
        if refused is not None:
            await refuse(context, opening, refused)

    return grpc.stream_stream_rpc_method_handler(handle)


class _Stream:
    """One stream: reads on a task of its own, answers each message on another, writes in order.

    Life: `run` returns when the client has said its last and has every answer, or when the server is going down and
    what was read is answered. Cancelled, because the client vanished, it takes all that is under way back. `read` is
    how many messages came, `refused` how many of them were not answered.
    """

    def __init__(
        self, calls: Calls, method: Method, told: Told, opening: Call, context: Context, keyless: bool
    ) -> None:
        self._calls = calls
        self._method = method
        self._told = told
        self._opening = opening
        self._context = context
        self._keyless = keyless
        self.read = self.refused = 0
        self._places = asyncio.Semaphore(calls.settings.stream_requests_max)
        self._answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        self._under_way: set[asyncio.Task[bytes]] = set()

    async def run(self) -> None:
        reading = asyncio.create_task(self._read())
        ending = asyncio.create_task(self._end(reading))
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(await answer)
                self._places.release()
        finally:
            for task in (reading, ending, *self._under_way):
                task.cancel()

    async def _read(self) -> None:
        try:
            while True:
                await self._places.acquire()
                body = await self._context.read()
                if body is grpc.aio.EOF:
                    return
                self.read += 1
                answer = asyncio.create_task(self._answer(body, self.read))
                self._under_way.add(answer)
                answer.add_done_callback(self._under_way.discard)
                self._answers.put_nowait(answer)
        finally:
            self._answers.put_nowait(None)

    async def _end(self, reading: asyncio.Task[None]) -> None:
        await self._calls.ending.wait()
        reading.cancel()

    async def _answer(self, body: bytes, number: int) -> bytes:
        """Recognised anew each time: a key may be revoked while its stream is open."""
        calls, opening = self._calls, self._opening
        call = Call()
        call.request_id = way.fresh_request_id()
        REQUEST_ID.set(call.request_id)
        call.credential = opening.credential
        # Two equal messages of one stream are two questions; the same stream sent again asks the same ones.
        call.given_id = f"{opening.given_id}/{number}" if opening.given_id else ""
        call.until = way.deadline(self._context.time_remaining(), calls.timeout_s)
        call.body = body
        refused: TidemillError | None = None
        span = None if self._keyless else begin_span(self._context)
        try:
            if not self._keyless:
                call.caller = calls.service.identity.recognise(call.credential)
            return await self._method(call)
        except Exception as error:  # noqa: BLE001 - `refusal` logs what was not foreseen
            refused = calls.refusal(call, error)
            self.refused += 1
            return self._told(call, refused)
        finally:
            if span is not None:
                end_span(span, call, refused)
