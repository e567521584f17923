"""Messages that repeat one another but for their numbers, read once; pure, on the owner's loop.

Who asks a model again and again sends the same names, shape and parameters each time, around other numbers. What stands
before and behind the numbers is compared byte by byte, and where it is known, only the numbers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np

from tidemill.core.errors import TidemillError
from tidemill.core.request import Predict
from tidemill.core.tensor import Array, Signature

About = TypeVar("About")
"""All that a message says besides its tensors and the outputs it wants; compared with `==`."""

FRAMES_MAX: Final = 256
"""Known at once, one for each length of a message."""
FRAME_BYTES_MAX: Final = 1024
"""Of a message around its numbers. Longer ones are read anew each time."""
_INVERTED: Final = bytes(range(255, -1, -1))


@dataclass(slots=True, eq=False)
class Frame(Generic[About]):
    """What stands around the numbers of one input, and what it says. `fits` is the signature that a message of this
    frame was held against, None before the first."""

    before: bytes
    behind: bytes
    about: About
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    fits: Signature | None = None

    def work(self, body: bytes, signature: str = "") -> Predict:
        """What `body`, a message of this frame, asks for, of a model's further `signature` where one is named."""
        # A slice is a copy, which is aligned where the middle of a message is not.
        numbers = body[len(self.before) : len(body) - len(self.behind)]
        inputs = {self.name: np.frombuffer(numbers, self.dtype).reshape(self.shape)}
        return Predict(inputs, self.outputs, signature=signature)


class Frames(Generic[About]):
    """Those of one method, whose messages `read` reads whole. It raises what is wrong with one."""

    def __init__(self, read: Callable[[bytes], tuple[About, Predict]]) -> None:
        self._read = read
        self._known: dict[int, Frame[About]] = {}
        self._seen: dict[int, tuple[bytes, bytes]] = {}

    def find(self, body: bytes) -> Frame[About] | None:
        """The frame of `body`, where it is known."""
        frame = self._known.get(len(body))
        if frame is not None and body.startswith(frame.before) and body.endswith(frame.behind):
            return frame
        return None

    def learn(self, body: bytes, about: About, work: Predict) -> None:
        """`body`, which is of no known frame, says `about` and asks for `work`; the second of a frame makes it known.

        That the numbers are just those bytes is tried out: with every bit of them turned round the message must say
        the same, with just those numbers.
        """
        if len(work.inputs) != 1:
            return
        ((name, array),) = work.inputs.items()
        if array.dtype.kind not in "fiu" or not 0 < len(body) - array.nbytes <= FRAME_BYTES_MAX or not array.nbytes:
            return
        at = body.find(array.data)
        if at < 0:
            return
        around = (body[:at], body[at + array.nbytes :])
        if self._seen.get(len(body)) != around:
            _put(self._seen, len(body), around)
            return
        if self._stands_alone(around, about, work, array):
            _put(self._known, len(body), Frame(*around, about, name, array.dtype, array.shape, work.outputs))

    def _stands_alone(self, around: tuple[bytes, bytes], about: About, work: Predict, array: Array) -> bool:
        turned = array.tobytes().translate(_INVERTED)
        try:
            said, asked = self._read(around[0] + turned + around[1])
        except TidemillError:
            return False
        if said != about or asked.outputs != work.outputs or asked.inputs.keys() != work.inputs.keys():
            return False
        (found,) = asked.inputs.values()
        return found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == turned


def _put(held: dict[int, Any], length: int, value: Any) -> None:
    if len(held) >= FRAMES_MAX and length not in held:
        held.clear()
    held[length] = value
