"""`Fleet` of models that another process serves, over a link; runs in a front."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

import msgspec

from tidemill.core.errors import LinkLost, RequestTooLarge
from tidemill.core.request import ANONYMOUS, Caller, InferenceRequest, Piece, Usage
from tidemill.deploy.mirror import Mirror, Mirrored
from tidemill.wire.frames import FrameError
from tidemill.wire.messages import Infer, Topic, encode, read_answer
from tidemill.wire.peer import Peer, Question
from tidemill.wire.tensors import pack_tensors, unpack_tensors

INFER = int(Topic.INFER)


class RemoteFleet:
    """Finds models in a mirror and has them answered by the process behind `peer`, which judges, charges and runs."""

    def __init__(self, mirror: Mirror, peer: Peer) -> None:
        self._mirror = mirror
        self._peer = peer
        self.find = mirror.find
        """As `Fleet.find`; the mirror's own, for a call less in every request."""

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._mirror.aliases

    def replicas(self) -> list[Mirrored]:
        return self._mirror.replicas()

    def versions(self, name: str) -> list[Mirrored]:
        return self._mirror.versions(name)

    def run(self, request: InferenceRequest, caller: Caller = ANONYMOUS) -> RemoteReply:
        """Have `request` judged, answered and booked for `caller`."""
        return RemoteReply(self._peer, request, caller)


class RemoteReply:
    """One answer on its way: asked for with the block, cancelled when the block is left early.

    Leaving it without an error after the final piece returns when the charge is booked: the owner holds it open until
    it hears that the answer could be worded. Leaving it with an error books nothing.
    """

    __slots__ = ("_caller", "_open", "_over", "_peer", "_question", "_request")

    def __init__(self, peer: Peer, request: InferenceRequest, caller: Caller) -> None:
        self._peer = peer
        self._request = request
        self._caller = caller
        self._question: Question | None = None
        self._open = False
        self._over = False

    async def __aenter__(self) -> RemoteReply:
        """Raises `Overloaded`, `RequestTooLarge`, `LinkLost`."""
        peer, request, caller = self._peer, self._request, self._caller
        if peer.paused:
            await peer.writable()
        heads, buffers, size = pack_tensors(request.tensors.inputs)
        header = encode(
            Infer(
                request.model,
                request.version,
                caller.tenant,
                caller.key,
                request.request_id,
                request.charge_id,
                request.deadline - time.monotonic(),
                request.tensors.outputs,
                request.tensors.media,
                request.traceparent,
                heads,
                request.tensors.signature,
            )
        )
        if size > peer.payload_bytes_max:
            raise RequestTooLarge(
                f"the tensors of this request have {size} bytes, the most allowed is {peer.payload_bytes_max}"
                " (--frame-bytes-max)"
            )
        self._question = peer.ask(INFER, header, buffers, size)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        question, self._question = self._question, None
        if question is None:
            return
        try:
            if kind is None and self._open:
                question.more()
                await question.next()
        finally:
            question.close()

    def __aiter__(self) -> RemoteReply:
        return self

    async def __anext__(self) -> Piece:
        if self._over or self._question is None:
            raise StopAsyncIteration
        frame = await self._question.next()
        try:
            answer = read_answer(frame.header)
            tensors = unpack_tensors(answer.tensors, frame.data, frame.start, frame.size)
        except (FrameError, msgspec.DecodeError) as unread:
            raise LinkLost(f"the answer of the process that holds the models cannot be read: {unread}") from unread
        if not answer.calls:
            return Piece(tensors)
        self._over = True
        self._open = not answer.booked
        usage = Usage(answer.calls, answer.rows, answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens)
        return Piece(tensors, usage)
