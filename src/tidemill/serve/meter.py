"""Counts pieces as they leave and settles the charge before the last one does; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Charge, Pieces
from tidemill.core.request import Piece


class Meter:
    """An iterator over the pieces of one reply. The final piece comes out when its charge is durable."""

    __slots__ = ("_charge", "_pieces")

    def __init__(self, pieces: Pieces, charge: Charge) -> None:
        self._pieces = pieces
        self._charge = charge

    def __aiter__(self) -> Meter:
        return self

    async def __anext__(self) -> Piece:
        piece = await self._pieces.__anext__()
        if piece.usage is not None:
            await self._charge.settle(piece.usage)
        return piece
