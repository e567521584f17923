"""What an operator does to a model from its page: load, unload, label, try; runs in the console's process."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from tidemill.console.asking import Asking, Reply, Strange, Unreachable
from tidemill.core.errors import ServerRefused
from tidemill.core.streamed import DONE, Answer, EventReader

LOAD_S_MAX = 900.0
"""How long the page waits for a model to be loaded; the service goes on, and its states tell how far it is."""
TRY_S_MAX = 300.0
LABEL_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Tried:
    """How a try went: `message` is empty when it was answered. `seconds` is the time from the console and back."""

    status: int
    body: bytes
    message: str
    seconds: float


class Acts:
    """Each returns "", or why it was not done, in the service's words where it gave any."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def load(self, name: str) -> str:
        return await self._done("POST", f"{_address(name)}/load", timeout_s=LOAD_S_MAX)

    async def unload(self, name: str) -> str:
        return await self._done("POST", f"{_address(name)}/unload", timeout_s=LOAD_S_MAX)

    async def label(self, name: str, label: str, version: int) -> str:
        path = f"{_address(name)}/labels/{quote(label, safe='')}"
        return await self._done("PUT", path, msgspec.json.encode({"version": version}), LABEL_S_MAX)

    async def attempt(self, name: str, version: int | None, media: str, body: bytes) -> Tried:
        """Ask the model as any caller would; the newest version where `version` is None."""
        params = None if version is None else {"version": str(version)}
        began = time.perf_counter()
        try:
            reply = await self._asking.send(
                "POST", f"{_address(name)}/try", content=body, headers={"Content-Type": media}, params=params,
                timeout_s=TRY_S_MAX,
            )  # fmt: skip
        except (Unreachable, Strange) as error:
            return Tried(0, b"", str(error), time.perf_counter() - began)
        return Tried(reply.status, reply.body, _why(reply), time.perf_counter() - began)

    async def say(
        self, name: str, version: int | None, body: dict[str, Any], answer: Answer
    ) -> AsyncGenerator[str, None]:
        """Have the model answer a chat, into `answer`; its words are given as they come. To leave is to stop it: hold
        it by `aclosing`. Raises `Strange` and `Unreachable` with what is to be shown."""
        params = None if version is None else {"version": str(version)}
        began = time.perf_counter()
        reader = EventReader()
        content = msgspec.json.encode({**body, "stream": True, "stream_options": {"include_usage": True}})
        path = f"{_address(name)}/chat"
        try:
            async with self._asking.listen(path, content=content, params=params, silence_s=TRY_S_MAX) as parts:
                async for part in parts:
                    for data in reader.feed(part):
                        if data == DONE:
                            return
                        if words := answer.take(data):
                            if answer.first_s is None:
                                answer.first_s = time.perf_counter() - began
                            yield words
            raise Strange("the service ended the answer in the middle; its log may tell why")
        except ServerRefused as error:
            raise Strange(error.message) from error
        finally:
            answer.spent_s = time.perf_counter() - began

    async def _done(self, method: str, path: str, content: bytes = b"", timeout_s: float = LOAD_S_MAX) -> str:
        try:
            return _why(await self._asking.send(method, path, content=content, timeout_s=timeout_s))
        except Unreachable as error:
            return f"no answer: {error}"
        except Strange as error:
            return str(error)


def _address(name: str) -> str:
    return f"models/{quote(name, safe='')}"


def _why(reply: Reply) -> str:
    return "" if reply.fine else f"{reply.message} ({reply.status})"
