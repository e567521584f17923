"""One way to ask the service at which the console looks, with one key; runs in the console's process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from tidemill.console.snapshot import ProblemBody, parse

TIMEOUT_S = 3.0
MESSAGE_MAX = 500
ANSWER_BYTES_MAX = 32 * 2**20
"""What is read of one answer; a longer one is no page's to show."""


class Refused(Exception):
    """401 or 403, with the service's own message."""


class Strange(Exception):
    """An answer that is not the admin API's."""


class Unreachable(Exception):
    """No answer, or none in time; the cause in words."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Any answer of the service; `message` is what it says where it refuses."""

    status: int
    body: bytes
    message: str = ""

    @property
    def fine(self) -> bool:
        return 200 <= self.status < 300


def client(api: str, inside: Path | None = None) -> httpx.AsyncClient:
    """A client for the service at `api`, which it reaches by the Unix socket `inside` where there is one: within the
    machine no certificate needs to fit. It ignores proxies and redirects, so a key goes nowhere else."""
    transport = None if inside is None else httpx.AsyncHTTPTransport(uds=str(inside))
    reached = api if inside is None else "http://localhost"
    return httpx.AsyncClient(
        base_url=reached.rstrip("/") + "/admin/v1/", timeout=TIMEOUT_S, trust_env=False, transport=transport
    )


class Asking:
    """The admin API under one key."""

    def __init__(self, http: httpx.AsyncClient, key: str = "") -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def get(self, path: str) -> bytes:
        """The body of a 200. Raises `Refused`, `Strange`, `Unreachable`."""
        reply = await self.send("GET", path)
        if reply.status == 200:
            return reply.body
        if reply.status in (401, 403):
            raise Refused(reply.message)
        raise Strange(f"GET {self._http.base_url.join(path)} answered {reply.status}: {reply.message}")

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Reply:
        """Whatever the service answers. Raises `Unreachable`; `Strange` for an answer too long to be read."""
        timeout = httpx.Timeout(TIMEOUT_S, read=timeout_s, write=timeout_s)
        every = {**self._headers, **(headers or {})}
        asked = self._http.stream(method, path, content=content or None, headers=every, params=params, timeout=timeout)
        try:
            async with asked as response:
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        raise Strange(f"the answer is longer than {ANSWER_BYTES_MAX} bytes; ask for it with curl")
        except httpx.RequestError as error:
            raise Unreachable(str(error)[:MESSAGE_MAX] or type(error).__name__) from error
        whole = bytes(body)
        message = "" if response.is_success else _message(whole, response.reason_phrase)
        return Reply(response.status_code, whole, message)

    @asynccontextmanager
    async def listen(
        self, path: str, *, content: bytes, params: Mapping[str, str] | None, silence_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The parts of the answer to `POST path` as they come; whoever leaves hangs up. Each silence may take
        `silence_s`. Raises `Strange` with its words for a refusal, `Unreachable` where the way breaks."""
        timeout = httpx.Timeout(TIMEOUT_S, read=silence_s, write=silence_s)
        headers = {**self._headers, "Content-Type": "application/json"}
        try:
            async with self._http.stream(
                "POST", path, content=content, headers=headers, params=params, timeout=timeout
            ) as response:
                if not response.is_success:
                    body = b""
                    async for part in response.aiter_bytes():
                        body += part
                        if len(body) > ANSWER_BYTES_MAX:
                            break
                    raise Strange(f"{_message(body, response.reason_phrase)} ({response.status_code})")
                yield response.aiter_bytes()
        except httpx.RequestError as error:
            raise Unreachable(str(error)[:MESSAGE_MAX] or type(error).__name__) from error


def _message(body: bytes, otherwise: str) -> str:
    try:
        told: ProblemBody = parse(ProblemBody, body)
    except msgspec.DecodeError:
        return otherwise
    return told.error[:MESSAGE_MAX]
