"""The child that checks: compiles what answers must fit, one after another, so that what breaks or hangs the compiler
breaks or hangs nobody's answer; its whole life, whatever compiles.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from tidemill.core.errors import TidemillError
from tidemill.core.generation import Constraint, Speaks
from tidemill.core.request import Usage
from tidemill.engine.generate.messages import Add, Opening, Part, Ready, Step, Topic, encode
from tidemill.engine.generate.owner import met
from tidemill.wire.peer import Bounds
from tidemill.wire.problems import problem_of


class Compiler(Protocol):
    def check(self, constraint: Constraint) -> None:
        """Raises `WrongValue`."""


async def run(link: socket.socket, bounds: Bounds, made: Callable[[Opening], Compiler]) -> None:
    """Make the compiler for the model that the owner names, then check until the owner is gone."""
    begun = await met(link, bounds)
    if begun is None:
        return
    owner, peer, opening = begun
    compiler = made(opening)
    peer.tell(int(Topic.READY), encode(Ready(Speaks(0), 0, 0)))
    while not owner.gone:
        await owner.news.wait()
        owner.news.clear()
        added, owner.added = owner.added, []
        for each in added:
            peer.tell(int(Topic.STEP), encode(Step((_checked(compiler, each),))))
    peer.close()


def _checked(compiler: Compiler, asked: Add) -> Part:
    constraint = asked.generate.constraint if asked.generate else None
    try:
        if constraint is not None:
            compiler.check(constraint)
    except TidemillError as error:
        return Part(asked.number, problem=problem_of(error))
    return Part(asked.number, usage=Usage())
