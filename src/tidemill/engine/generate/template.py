"""The model's own template for chat, in a sandbox and bounded in time; runs in the child, on its main thread.

A template comes with a model from outside: it is a program. Jinja2's immutable sandbox keeps it from attributes that
lead out, the alarm from running on, and products and powers, which could fill the memory at one go, are bounded.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import FrameType
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tidemill.core.errors import RefusedModel, WrongValue

REPEATS_MAX: Final = 10_000


class _TooLong(BaseException):
    """Past what templates and filters catch."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            repeats = right if isinstance(right, int) else left
            if operator == "**" or not isinstance(repeats, int) or repeats > REPEATS_MAX:
                raise jinja2.exceptions.SecurityError(f"{operator!r} makes too much")
        return super().call_binop(context, operator, left, right)


class Template:
    """A template that words messages. Raises `RefusedModel` for one that is no template."""

    def __init__(self, source: str, bos: str, eos: str, seconds_max: float) -> None:
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._seconds_max = seconds_max
        self._fixed = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        self.tools = "tools" in source
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise RefusedModel(f"its template for chat cannot be read: {error}") from error

    def word(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str:
        """The prompt. Raises `WrongValue` for messages that the template refuses or does not come to an end with."""
        given = {**self._fixed, "messages": list(messages), **({"tools": list(tools)} if tools else {})}
        try:
            with _alarm(self._seconds_max):
                return self._template.render(given)
        except _TooLong:
            raise WrongValue(
                f"the model's template for chat did not word these messages within {self._seconds_max:g} s",
                param="messages",
            ) from None
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
            raise WrongValue(
                f"the model's template for chat refuses these messages: {error}", param="messages"
            ) from error


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _to_json(value: Any, indent: int | None = None, **more: Any) -> str:
    """As models were trained: without the escapes that Jinja2's own makes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
