"""How `tidemill chat` tells an answer: words on stdout as they come, what they took on stderr; its process."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

import click
import orjson

from tidemill.cli.common import units
from tidemill.client.chat import Conversation
from tidemill.core.price import Tariff
from tidemill.core.streamed import Answer, took

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a model might steer a terminal with."""


class Told:
    """Asks `talk` and tells what comes. `tariff` None leaves prices out."""

    def __init__(self, talk: Conversation, tariff: Tariff | None, as_json: bool) -> None:
        self._talk = talk
        self._tariff = tariff
        self._as_json = as_json
        self._in_line = False

    def answer(self, question: str) -> None:
        """Raises `ServerRefused`, and `KeyboardInterrupt` once the connection is closed."""
        terminal = sys.stdout.isatty()
        with contextlib.closing(self._talk.ask(question)) as words:
            for each in words:
                if not self._as_json:
                    self._in_line = True
                    click.echo(CONTROL.sub("\ufffd", each) if terminal else each, nl=False)
        self._end()
        answer = self._talk.answer
        if self._as_json:
            click.echo(orjson.dumps(self._plain(question, answer)))
        else:
            click.secho(took(answer, self._price(answer)), dim=True, err=True)

    def _price(self, answer: Answer) -> str:
        if answer.counted is None or self._tariff is None:
            return ""
        return f"price {units(self._tariff.nanos(answer.counted))}"

    def stopped(self) -> None:
        self._end()
        spent_s = self._talk.answer.spent_s
        click.secho(f"stopped after {spent_s:.1f} s; the chat goes on", dim=True, err=True)

    def refused(self, message: str) -> None:
        self._end()
        click.secho(message, fg="red", err=True)

    def _end(self) -> None:
        if self._in_line:
            click.echo()
        self._in_line = False

    def _plain(self, question: str, answer: Answer) -> dict[str, Any]:
        counted = answer.counted
        nanos = None if counted is None or self._tariff is None else self._tariff.nanos(counted)
        return {
            "question": question,
            "answer": answer.text,
            "finish_reason": answer.finish,
            "prompt_tokens": None if counted is None else counted.prompt_tokens,
            "cached_tokens": None if counted is None else counted.cached_tokens,
            "completion_tokens": None if counted is None else counted.completion_tokens,
            "first_token_s": answer.first_s,
            "seconds": answer.spent_s,
            "tokens_per_second": answer.tokens_per_second,
            "price_nanos": nanos,
        }
