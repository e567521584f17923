"""Counts pieces as they leave: what the reply will be charged for; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Pieces
from tidemill.core.request import Piece, Usage


class Meter:
    """An iterator over the pieces of one reply. `usage` is what the final one counts for, None before it came."""

    __slots__ = ("_pieces", "usage")

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.usage: Usage | None = None

    def __aiter__(self) -> Meter:
        return self

    async def __anext__(self) -> Piece:
        piece = await self._pieces.__anext__()
        if piece.usage is not None:
            self.usage = piece.usage
        return piece
