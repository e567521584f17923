"""The playground of a model that speaks: a conversation, answered word by word, that can be stopped; runs in the
console's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from nicegui import events, ui

from tidemill.console import curl
from tidemill.console import format as form
from tidemill.console.acts import Acts
from tidemill.console.asking import Strange, Unreachable
from tidemill.console.pages import answer as told
from tidemill.console.pages import browser
from tidemill.console.pages.parts import box, enable, press, say, tint, words
from tidemill.console.snapshot import Model, Service
from tidemill.core.streamed import Answer, took

TEXT_MAX = 100_000
TURNS_MAX = 200
"""A page holds no longer conversation; the oldest of it is forgotten."""
DRAWN_EVERY_S = 0.25
TEMPERATURE, TEMPERATURE_MAX = 0.7, 2.0
TOKENS, TOKENS_MAX = 512, 10**6


class Chat:
    """Built for one model, which `model` gives as it was seen last. A page that goes away, or shows another, calls
    `stop`."""

    def __init__(
        self, model: Callable[[], Model], acts: Callable[[], Acts], version: Callable[[], int | None],
        service: Callable[[], Service | None], changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._model, self._acts, self._version = model, acts, version
        self._service, self._changed = service, changed
        self._turns: list[dict[str, str]] = []
        self._task: asyncio.Task[None] | None = None
        with box("question chat"):
            with ui.element("details").classes("fold how"):
                words("System prompt, temperature, length", tag="summary")
                self._system = _area("system", "system prompt", 2, "what the model is told before all else")
                with box("controls"):
                    self._temperature = _number("temperature", TEMPERATURE, 0, TEMPERATURE_MAX, "0.1")
                    self._tokens = _number("tokens of an answer, at most", TOKENS, 1, TOKENS_MAX, "1")
            self._said = box_of("talk")
            self._said.props('role=log aria-label="the conversation"')
            self._boxed = box_of("")
            with box("controls"):
                self._send = ui.element("button").classes("act main").props("type=button")
                with self._send:
                    words("Send", tag="span")
                self._send.on("click", self._asked, js_handler=browser.SAID)
                self._stop = press("Stop", self.stop, "act danger")
                self._clear = press("Clear", self._forget, "act")
            self._message = words("", "message bad").props("role=alert")
        self._line = box_of("")
        self._wait(False)
        self._say("")
        self._fresh()

    def stop(self) -> None:
        """Hang up: the service gives up the answer within a step."""
        if self._task is not None:
            self._task.cancel()

    def _wait(self, waiting: bool) -> None:
        enable(self._send, not waiting)
        enable(self._clear, not waiting)
        self._stop.set_visibility(waiting)

    def _say(self, text: str) -> None:
        say(self._message, text)
        self._message.set_visibility(bool(text))

    def _fresh(self) -> None:
        """An empty box: what a reader writes stays in the browser until it is sent."""
        self._boxed.clear()
        with self._boxed:
            area = _area("say", "what you say", 3, "Write something; Ctrl-Enter sends it")
            area.on("keydown", self._asked, js_handler=browser.SAYS)

    def _forget(self) -> None:
        self._turns.clear()
        self._said.clear()
        self._line.clear()
        self._say("")

    async def _asked(self, event: events.GenericEventArguments) -> None:
        if self._task is not None:
            return
        question, system, temperature, tokens = (str(each) for each in event.args)
        body = self._body(question, system, temperature, tokens)
        if body is None:
            return
        self._say("")
        with self._said:
            words(question, "turn mine")
            with box("turn theirs"):
                text = words("", "words")
                cost = words("…", "soft cost")
        self._fresh()
        self._wait(True)
        ui.run_javascript(browser.FOLLOW)
        self._task = asyncio.create_task(self._answer(body, question, text, cost))
        try:
            await asyncio.wait([self._task])
            self._task.result()
        except asyncio.CancelledError:
            if not self._task.cancelled():  # the page itself goes away
                self._task.cancel()
                raise
        finally:
            self._task = None
        self._wait(False)
        self._changed()
        self._line.clear()
        service = self._service()
        if service is not None:
            with self._line:
                told.call(curl.chat(service.http_url, service.auth, {"model": self._model().name, **body}))

    def _body(self, question: str, system: str, temperature: str, tokens: str) -> dict[str, Any] | None:
        """What is sent; None where something is wrong with it, which is told."""
        if not question.strip():
            self._say("There is nothing to ask: write something.")
            return None
        try:
            warmth, most = float(temperature), int(tokens)
        except ValueError:
            self._say("Temperature and tokens are numbers.")
            return None
        if not (0 <= warmth <= TEMPERATURE_MAX and 1 <= most <= TOKENS_MAX):
            self._say(f"The temperature is 0 to {TEMPERATURE_MAX:g}, the tokens are 1 to {form.count(TOKENS_MAX)}.")
            return None
        head = [{"role": "system", "content": system}] if system.strip() else []
        messages = [*head, *self._turns, {"role": "user", "content": question}]
        return {"messages": messages, "temperature": warmth, "max_tokens": most}

    async def _answer(self, body: dict[str, Any], question: str, text: ui.html, cost: ui.html) -> None:
        """Into `text` and `cost`; kept as far as it came, unless it was refused."""
        answer, drawn_at, stopped = Answer(), 0.0, False
        try:
            async with aclosing(self._acts().say(self._model().name, self._version(), body, answer)) as parts:
                async for _ in parts:
                    if time.monotonic() - drawn_at > DRAWN_EVERY_S:
                        drawn_at = time.monotonic()
                        say(text, answer.text)
        except asyncio.CancelledError:
            stopped = True
        except (Strange, Unreachable) as error:
            say(text, answer.text)
            say(cost, f"{error} · after {form.latency(answer.spent_s)}")
            tint(cost, "bad")
            return
        say(text, answer.text)
        say(cost, f"stopped after {form.latency(answer.spent_s)}" if stopped else took(answer, self._price(answer)))
        if answer.text:
            self._turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]
            del self._turns[:-TURNS_MAX]

    def _price(self, answer: Answer) -> str:
        service = self._service()
        if answer.counted is None or service is None:
            return ""
        if not service.charging:
            return "nothing is booked here"
        return f"{form.money(self._model().tariff.nanos(answer.counted))} charged"


def box_of(classes: str) -> ui.element:
    """An empty element."""
    with box(classes) as made:
        return made


def _area(name: str, label: str, rows: int, hint: str) -> ui.html:
    area = ui.html("", sanitize=False, tag="textarea").classes("write")
    area.props(f'name={name} rows={rows} maxlength={TEXT_MAX} aria-label="{label}" placeholder="{hint}"')
    return area


def _number(label: str, value: float, least: float, most: float, step: str) -> ui.element:
    with ui.element("label").classes("soft"):
        words(label, tag="span")
        field = ui.element("input").classes("number-field")
        field.props(f'type=number min={least} max={most} step={step} aria-label="{label}"')
        # As an attribute it is where the field begins; as a property it would undo what was typed at every drawing.
        field.props["^value"] = str(value)
    return field
