"""What the owner tells a child, as the child sees it: kept until it is looked at; runs in the child."""

from __future__ import annotations

import asyncio
import socket

from tidemill.engine.generate.messages import Add, Opening, Topic, read_add, read_number, read_opening
from tidemill.wire.frames import Frame, FrameError
from tidemill.wire.peer import Asked, Bounds, Peer, open_peer


class Owner:
    """`wire.peer.Handler` of the child: what the owner has told and was not looked at yet."""

    def __init__(self) -> None:
        self.opening: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self.added: list[Add] = []
        self.dropped: list[int] = []
        self.news = asyncio.Event()
        self.gone = False

    def asked(self, stream: Asked, frame: Frame) -> None:
        raise FrameError("the owner asks nothing of the child that generates")

    def told(self, frame: Frame) -> None:
        if frame.topic == Topic.ADD:
            self.added.append(read_add(frame.header))
        elif frame.topic == Topic.DROP:
            self.dropped.append(read_number(frame.header))
        elif frame.topic == Topic.OPEN:
            self.opening.set_result(read_opening(frame.header))
        else:
            raise FrameError(f"the owner told something about topic {frame.topic}")
        self.news.set()

    def lost(self) -> None:
        self.gone = True
        self.opening.cancel()
        self.news.set()


async def met(link: socket.socket, bounds: Bounds) -> tuple[Owner, Peer, Opening] | None:
    """The owner, the way to it, and what it wants to be opened; None where it is gone before it has said so."""
    owner = Owner()
    peer = await open_peer(link, bounds, owner)
    try:
        return owner, peer, await owner.opening
    except asyncio.CancelledError:
        return None
