"""A conversation with a language model over `/v1/chat/completions`, streamed; runs in the caller's process.

Any server of OpenAI's dialect will do.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tidemill.core.errors import InvalidSetting, ServerRefused
from tidemill.core.streamed import DONE, Answer, EventReader, worded

CONNECT_S_MAX = 10.0
REFUSAL_BYTES_MAX = 64 * 2**10
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(slots=True)
class Conversation:
    """What was said so far, and how the model is asked. Belongs to one thread.

    `body` holds what every request carries besides: the model's name, the temperature, and so on.
    """

    http: httpx.Client
    body: Mapping[str, Any]
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    def clear(self) -> None:
        self.turns.clear()

    def ask(self, question: str) -> Generator[str, None, None]:
        """The answer's words as they come; `answer` holds them too, and what is known of them in the end.

        A question that was refused is forgotten. An answer that was broken off (the iterator was closed, or ^C came) is
        kept as far as it went: the model said so much; one without a word leaves nothing. Raises `ServerRefused`.
        """
        self.answer = answer = Answer()
        asked = {"role": "user", "content": question}
        head = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            **self.body,
            "messages": [*head, *self.turns, asked],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.perf_counter()
        try:
            for data in chunks(self.http, body):
                words = answer.take(data)
                if words:
                    if answer.first_s is None:
                        answer.first_s = time.perf_counter() - began
                    yield words
        except ServerRefused:
            answer.spent_s = time.perf_counter() - began
            raise
        except BaseException:
            answer.spent_s = time.perf_counter() - began
            self._keep(asked, answer)
            raise
        answer.spent_s = time.perf_counter() - began
        self._keep(asked, answer)

    def _keep(self, asked: dict[str, str], answer: Answer) -> None:
        if answer.text:
            self.turns += [asked, {"role": "assistant", "content": answer.text}]


def chunks(http: httpx.Client, body: Mapping[str, Any]) -> Generator[bytes, None, None]:
    """The data of each chunk of one streamed answer up to its `[DONE]`. Raises `ServerRefused`."""
    reader = EventReader()
    try:
        with http.stream("POST", "chat/completions", json=body) as reply:
            if reply.status_code != 200:
                raise ServerRefused(_refusal(reply))
            for part in reply.iter_bytes():
                for data in reader.feed(part):
                    if data == DONE:
                        return
                    yield data
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerRefused(_lost(http, error)) from error
    raise ServerRefused("the server ended the answer in the middle; its log may tell why")


def _refusal(reply: httpx.Response) -> str:
    body = bytearray()
    for part in reply.iter_bytes():
        body += part
        if len(body) > REFUSAL_BYTES_MAX:
            break
    return f"{reply.request.url} answered {reply.status_code}: {worded(bytes(body))}"


def _lost(http: httpx.Client, error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"nothing listens at {http.base_url}: start a server there, or leave --url out ({error})"
    if isinstance(error, httpx.TimeoutException):
        return f"{http.base_url} said nothing for too long; --timeout-seconds gives it more"
    return f"{http.base_url} did not answer to its end: {error or type(error).__name__}"


def client(url: str, key: str | None, timeout_s: float, verify: Any = True) -> httpx.Client:
    """Asks `url` (`http://HOST:PORT`, with or without `/v1`). `timeout_s` bounds each silence. Raises
    `InvalidSetting`."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidSetting(f"url {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidSetting(f"url {url!r}: expected http://HOST[:PORT]")
    base = url.rstrip("/").removesuffix("/v1") + "/v1"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S_MAX, timeout_s))
    # No proxy stands between us and this machine, whatever the environment says.
    return httpx.Client(
        base_url=base, headers=headers, timeout=timeout, verify=verify, trust_env=parsed.host not in LOOPBACK
    )


def listed(http: httpx.Client) -> list[str]:
    """The models that the server tells of. Raises `ServerRefused`, also where a key is wanted and none fits."""
    try:
        reply = http.get("models")
        told = reply.json() if reply.status_code == 200 else None
        if told is None:
            raise ServerRefused(f"{reply.request.url} answered {reply.status_code}: {worded(reply.content)}")
        return [str(each["id"]) for each in told["data"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerRefused(_lost(http, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServerRefused(
            f"{http.base_url} lists its models in no way of OpenAI's; is it the right server?"
        ) from error
