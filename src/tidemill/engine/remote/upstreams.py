"""The upstreams of one model: asked in turn, left alone while they are sick, looked at, closed; on the owner's loop."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx

from tidemill.core.errors import DeadlineExceeded, Overloaded, RefusedModel, TidemillError, UpstreamFailed
from tidemill.core.package import Remote
from tidemill.engine.remote.choice import Budget, choose
from tidemill.engine.remote.http import NOTHING_THERE, REFUSAL_BYTES_MAX, Asking, judge
from tidemill.engine.remote.place import Place

log = logging.getLogger(__name__)
T = TypeVar("T")

HEALTH_S_MAX = 5.0
"""What an upstream may take to say that it is well."""


class Reply:
    """An answer that has begun: its status was good. Closing it ends the upstream's work."""

    def __init__(self, place: Place, response: httpx.Response, bytes_max: int) -> None:
        self.place = place
        self.headers = response.headers
        self._response = response
        self._parts = response.aiter_raw()
        self._left = bytes_max

    async def part(self) -> bytes:
        """The next bytes, b"" at the end. Raises `UpstreamFailed`, `httpx.TransportError`."""
        part = await anext(self._parts, b"")
        self._left -= len(part)
        if self._left < 0:
            raise UpstreamFailed(
                f"{self.place.who} answered with more bytes than are taken ([remote] answer_bytes_max)"
            )
        return part

    async def whole(self) -> bytes:
        """As `part`, all of it."""
        parts = []
        while part := await self.part():
            parts.append(part)
        return b"".join(parts)

    async def close(self) -> None:
        await self._response.aclose()


class Upstreams:
    """Life: `watch` while the model serves, `close` once. All state belongs to the loop."""

    def __init__(self, name: str, wish: Remote, folder: Path, health: Callable[[Place], str]) -> None:
        """`health` is the path that tells whether an upstream is well. Raises `RefusedModel`."""
        self.wish = wish
        self.places = [Place(number, each, wish, name, folder) for number, each in enumerate(wish.upstream, 1)]
        self._of = {place.standing.name: place for place in self.places}
        self._name = name
        self._health = health
        self._budget = Budget(wish.retry_share)
        self._client = _client(wish, folder)

    async def ask(
        self,
        asking: Callable[[Place], Asking],
        begin: Callable[[Reply], Awaitable[T]],
        deadline: float,
        headers: dict[str, str] | None = None,
    ) -> tuple[Reply, T]:
        """The first answer that began well, and what `begin` made of its beginning; the caller closes it.

        While nothing has begun, another upstream is asked where one fails, as far as `tries_max`, the budget of retries
        and the deadline allow. Raises `UpstreamFailed`, `Overloaded`, `DeadlineExceeded`, and what an upstream refused.
        """
        self._budget.request()
        failure: TidemillError | None = None
        tried: list[str] = []
        for number in range(self.wish.tries_max):
            chosen = choose([place.standing for place in self.places], tried, time.monotonic())
            if chosen is None or (number and not self._budget.retry()):
                break
            tried.append(chosen.name)
            place = self._of[chosen.name]
            chosen.asked()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    return await self._try(place, asking(place), begin, headers or {})
            except TimeoutError as error:
                chosen.left()
                raise DeadlineExceeded(f"the deadline passed before {place.who} had answered") from error
            except _Failed as failed:
                failure = failed.error
                if not failed.others:
                    raise failure from failed.__cause__
                if failed.again and not self._others(tried):
                    tried.clear()  # a connection that the other side had closed tells nothing: once more
            finally:
                chosen.left()
        raise failure or self._nobody()

    def _others(self, tried: list[str]) -> bool:
        """Whether somebody who was not `tried` may be asked."""
        now = time.monotonic()
        return any(place.standing.open(now) for place in self.places if place.standing.name not in tried)

    async def _try(
        self, place: Place, asking: Asking, begin: Callable[[Reply], Awaitable[T]], headers: dict[str, str]
    ) -> tuple[Reply, T]:
        response = None
        try:
            response = await self._send(place, asking, headers)
            if response.status_code >= 300:
                await self._refused(place, response)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise UpstreamFailed(f"{place.who} answered in an encoding that it was not asked for")
            reply = Reply(place, response, self.wish.answer_bytes_max)
            begun = await begin(reply)
        except BaseException as error:
            if response is not None:
                await response.aclose()
            if isinstance(error, httpx.PoolTimeout):
                told = f"{self.wish.connections_max} connections of model {self._name!r} are busy, the most allowed"
                raise _Failed(Overloaded(told, retry_after_s=1.0), others=False) from error
            if isinstance(error, httpx.TransportError | httpx.InvalidURL):
                self.sick(place, error)
                again = not isinstance(error, httpx.TimeoutException)
                raise _Failed(UpstreamFailed(f"{place.who} {_why(error)}"), others=True, again=again) from error
            if isinstance(error, UpstreamFailed):
                self.sick(place, error)
                raise _Failed(error, others=True) from error
            raise
        self.well(place)
        return reply, begun

    async def _send(self, place: Place, asking: Asking, headers: dict[str, str]) -> httpx.Response:
        path = place.moved.get(asking.path, asking.path)
        response = await self._send_to(place, asking, path, headers)
        if response.status_code not in NOTHING_THERE or not asking.elsewhere or path == asking.elsewhere:
            return response
        await response.aclose()
        response = await self._send_to(place, asking, asking.elsewhere, headers)
        if response.status_code not in NOTHING_THERE:
            place.moved[asking.path] = asking.elsewhere
        return response

    async def _send_to(self, place: Place, asking: Asking, path: str, headers: dict[str, str]) -> httpx.Response:
        own = {"accept-encoding": "identity", **asking.headers, **headers}
        if place.key:
            own["authorization"] = f"Bearer {place.key}"
        request = self._client.build_request(asking.method, place.url + path, content=asking.body, headers=own)
        return await self._client.send(request, stream=True)

    async def _refused(self, place: Place, response: httpx.Response) -> None:
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) > REFUSAL_BYTES_MAX:
                break
        judged = judge(response.status_code, response.headers, body[:REFUSAL_BYTES_MAX], place.who)
        if judged.well:
            self.well(place)
        elif judged.well is False:
            self.sick(place, judged.error)
        else:
            place.standing.busy()
        raise _Failed(judged.error, judged.others)

    def well(self, place: Place) -> None:
        if place.standing.paused_until:
            log.info("%s is back", place.who, extra={"model": self._name, "upstream": place.url})
        place.standing.well()

    def sick(self, place: Place, error: Exception) -> None:
        """Count a failure of `place`."""
        if place.standing.failed(time.monotonic(), self.wish.failures_max, self.wish.pause_s):
            why = error.message if isinstance(error, TidemillError) else type(error).__name__
            log.warning("%s is left alone: %s", place.who, why, extra={"model": self._name, "upstream": place.url})

    def _nobody(self) -> UpstreamFailed:
        return UpstreamFailed(
            f"all {len(self.places)} upstreams of model {self._name!r} have failed lately and are left alone",
            retry_after_s=max(1.0, self.wish.pause_s),
        )

    async def fetch(self, path: Callable[[Place], str], seconds_max: float) -> tuple[Place, bytes]:
        """What the first upstream that answers has at `path`. Raises `UpstreamFailed`."""
        reply, body = await self.ask(
            lambda place: Asking("GET", path(place), b"", {}), Reply.whole, time.monotonic() + seconds_max
        )
        await reply.close()
        return reply.place, body

    async def watch(self) -> None:
        """Look after every upstream for ever; returns at once where that is not wanted."""
        while self.wish.health_s:
            await asyncio.sleep(self.wish.health_s)
            await asyncio.gather(*(self._look(place) for place in self.places))

    async def _look(self, place: Place) -> None:
        try:
            place.read_key()
            async with asyncio.timeout(HEALTH_S_MAX):
                response = await self._send(place, Asking("GET", self._health(place), b"", {}), {})
                await response.aclose()
        except RefusedModel as error:
            log.error("%s", error.message, extra={"model": self._name})
        except (httpx.TransportError, httpx.InvalidURL, TimeoutError) as error:
            self.sick(place, error)
        else:
            # 404 and 405: there is no such address, which is no word on its health; requests will tell.
            if response.status_code < 300 or response.status_code in NOTHING_THERE:
                self.well(place)
            else:
                self.sick(place, UpstreamFailed(f"{place.who} answers a look with status {response.status_code}"))

    async def close(self) -> None:
        await self._client.aclose()


class _Failed(Exception):
    """An attempt that failed; `others` may be asked, this one `again` where nobody else is left."""

    def __init__(self, error: TidemillError, others: bool, again: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.others = others
        self.again = again


def _client(wish: Remote, folder: Path) -> httpx.AsyncClient:
    """Certificates are checked, no redirect is followed, and the environment's proxies and `.netrc` are left alone: a
    key goes where the operator said, and nowhere else. Raises `RefusedModel`."""
    verify: ssl.SSLContext | bool = True
    if wish.ca_file:
        try:
            verify = ssl.create_default_context(cafile=folder / Path(wish.ca_file).expanduser())
        except OSError as error:
            raise RefusedModel(f"[remote] ca_file = {wish.ca_file!r} cannot be read: {error}") from error
    connect_s, read_s = wish.connect_ms / 1000, wish.read_ms / 1000
    return httpx.AsyncClient(
        verify=verify,
        timeout=httpx.Timeout(read_s, connect=connect_s, pool=connect_s),
        limits=httpx.Limits(max_connections=wish.connections_max, max_keepalive_connections=wish.connections_max),
        follow_redirects=False,
        trust_env=False,
    )


def _why(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return "cannot be reached"
    if isinstance(error, httpx.TimeoutException):
        return "said nothing for too long ([remote] read_ms)"
    return "broke off"
