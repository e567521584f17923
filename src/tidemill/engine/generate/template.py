"""The model's own template for chat, in a sandbox and bounded in time; runs in the child, on its main thread.

A template comes with a model from outside: it is a program. Jinja2's immutable sandbox keeps it from attributes that
lead out, the alarm from running on, and products, powers, paddings and formats, which could fill the memory at one go,
are bounded.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import FrameType
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tidemill.core.errors import RefusedModel, WrongValue

REPEATS_MAX: Final = 10_000
PADS: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
ERROR_CHARACTERS: Final = 400
_NUMBER = re.compile(r"[0-9]+")
_NESTED = re.compile(r"\{[^{}]*\{")


class _TooLong(BaseException):
    """Past what templates and filters catch."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%":
            if isinstance(left, str):
                _check_widths(left, right)
        elif operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            repeats = right if isinstance(right, int) else left
            if operator == "**" or not isinstance(repeats, int) or repeats > REPEATS_MAX:
                raise jinja2.exceptions.SecurityError(f"{operator!r} makes too much")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
        bound = getattr(called, "__self__", None)
        if isinstance(bound, str | bytes):
            name = getattr(called, "__name__", "")
            if name in PADS:
                _check_numbers((*args, *named.values()), f"{name}() makes")
            elif name in ("format", "format_map"):
                _check_widths(str(bound), (args, named))
        return super().call(context, called, *args, **named)


def _check_widths(form: str, given: Any) -> None:
    """Raises `SecurityError` for a format with a width beyond what is made, or that may be given one."""
    if any(len(each) > len(str(REPEATS_MAX)) or int(each) > REPEATS_MAX for each in _NUMBER.findall(form)):
        raise jinja2.exceptions.SecurityError("a format makes too much")
    if "*" in form or form.count("{") > form.count("}") or _NESTED.search(form):
        _check_numbers(_flat(given), "a format makes")


def _check_numbers(given: Iterable[Any], what: str) -> None:
    if any(isinstance(each, int) and each > REPEATS_MAX for each in given):
        raise jinja2.exceptions.SecurityError(f"{what} too much")


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, dict):
        given = tuple(given.values())
    if isinstance(given, list | tuple):
        for each in given:
            yield from _flat(each)
    else:
        yield given


class Template:
    """A template that words messages. Raises `RefusedModel` for one that is no template."""

    def __init__(self, source: str, bos: str, eos: str, seconds_max: float) -> None:
        environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            autoescape=False,
            optimized=False,  # it would work out constants while the model loads, past every bound here
        )
        environment.filters["tojson"] = _to_json
        for name in ("center", "format", "indent"):
            environment.filters[name] = _bounded(name, environment.filters[name])
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._seconds_max = seconds_max
        self._fixed = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        self.tools = "tools" in source
        try:
            with _alarm(seconds_max):
                self._template = environment.from_string(source)
        except _TooLong:
            raise RefusedModel(f"its template for chat is not read within {seconds_max:g} s") from None
        except Exception as error:  # it is a program from outside, and so is what reads it
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
        except Exception as error:  # a program from outside may raise anything, of memory too
            told = str(error)[:ERROR_CHARACTERS] or type(error).__name__
            raise WrongValue(
                f"the model's template for chat refuses these messages: {told}", param="messages"
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


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pads or formats, without what would fill the memory at one go."""

    def bounded(value: Any, *args: Any, **named: Any) -> Any:
        if name == "format":
            _check_widths(str(value), (args, named))
        else:
            _check_numbers((*args, *named.values()), f"{name} makes")
        return made(value, *args, **named)

    return bounded


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
