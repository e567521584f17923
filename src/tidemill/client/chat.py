"""A conversation with a language model over `/v1/chat/completions`, streamed; runs in the caller's process.

Any server of OpenAI's dialect will do.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tidemill.client.events import EventReader
from tidemill.core.errors import InvalidSetting, ServerRefused
from tidemill.core.request import Usage

CONNECT_S_MAX = 10.0
REFUSAL_BYTES_MAX = 64 * 2**10
SAID_CHARACTERS = 500
DONE = b"[DONE]"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(slots=True)
class Answer:
    """One answer as it grows.

    `counted` is None for one that was broken off, and where a server counts nothing; `finish` is the server's word for
    why it ended. Seconds are from when the question was sent.
    """

    text: str = ""
    finish: str = ""
    counted: Usage | None = None
    first_s: float | None = None
    spent_s: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Of those behind the first, which waits for the prompt; None where nobody counted, and for a single one."""
        if self.counted is None or self.first_s is None or self.counted.completion_tokens < 2:
            return None
        spent_s = self.spent_s - self.first_s
        return (self.counted.completion_tokens - 1) / spent_s if spent_s > 0 else None


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
            for chunk in chunks(self.http, body):
                words = _take(answer, chunk)
                if words:
                    if answer.first_s is None:
                        answer.first_s = time.perf_counter() - began
                    answer.text += words
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


def _take(answer: Answer, chunk: Mapping[str, Any]) -> str:
    """The words of `chunk`; what else it tells goes to `answer`. Raises `ServerRefused`."""
    try:
        if chunk.get("error"):
            raise ServerRefused(f"the server broke off: {said(chunk)}")
        if usage := chunk.get("usage"):
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            answer.counted = Usage(
                prompt_tokens=int(usage["prompt_tokens"]),
                completion_tokens=int(usage["completion_tokens"]),
                cached_tokens=int(cached),
            )
        words = ""
        for choice in chunk.get("choices") or ():
            words += choice["delta"].get("content") or ""
            answer.finish = choice.get("finish_reason") or answer.finish
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerRefused(f"the server sent a chunk that is none of OpenAI's: {error!r}") from error
    return words


def chunks(http: httpx.Client, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
    """The chunks of one streamed answer up to its `[DONE]`. Raises `ServerRefused`."""
    reader = EventReader()
    try:
        with http.stream("POST", "chat/completions", json=body) as reply:
            if reply.status_code != 200:
                raise ServerRefused(_refusal(reply))
            for part in reply.iter_bytes():
                for data in reader.feed(part):
                    if data == DONE:
                        return
                    yield _parsed(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerRefused(_lost(http, error)) from error
    raise ServerRefused("the server ended the answer in the middle; its log may tell why")


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ServerRefused(f"the server sent a chunk that is no JSON: {data[:80]!r}") from error
    if not isinstance(chunk, dict):
        raise ServerRefused(f"the server sent a chunk that is no object: {data[:80]!r}")
    return chunk


def _refusal(reply: httpx.Response) -> str:
    body = bytearray()
    for part in reply.iter_bytes():
        body += part
        if len(body) > REFUSAL_BYTES_MAX:
            break
    return f"{reply.request.url} answered {reply.status_code}: {_worded(bytes(body))}"


def _worded(body: bytes) -> str:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:SAID_CHARACTERS].decode("utf-8", "replace") or "nothing more"
    return said(told) if isinstance(told, dict) else str(told)[:SAID_CHARACTERS]


def said(told: Mapping[str, Any]) -> str:
    """The message of an error in OpenAI's shape, or in this service's own."""
    error = told.get("error", told)
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:SAID_CHARACTERS]


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
            raise ServerRefused(f"{reply.request.url} answered {reply.status_code}: {_worded(reply.content)}")
        return [str(each["id"]) for each in told["data"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerRefused(_lost(http, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServerRefused(
            f"{http.base_url} lists its models in no way of OpenAI's; is it the right server?"
        ) from error
