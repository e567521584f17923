"""What is asked in the playground: a box to write into, a file to open, samples; runs in the console's process."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nicegui import events, ui

from tidemill.console import drawings, samples
from tidemill.console import format as form
from tidemill.console.answers import Box
from tidemill.console.kinds import FILES, WRITTEN, Kind, media_type
from tidemill.console.pages import browser
from tidemill.console.pages.parts import box, enable, press, say, words
from tidemill.console.snapshot import Model

TEXT_MAX = 100_000
"""Characters of a box; a larger file is sent as it is, and not written into the page."""
TITLES = {
    Kind.TEXT: "a text",
    Kind.PICTURE: "a picture, PNG or JPEG",
    Kind.SOUND: "a sound, WAV",
    Kind.TABLE: "a table as CSV, its first line the names",
    Kind.BYTES: "any file, or what you write here",
    Kind.TENSORS: "tensors as JSON, as :predict takes them",
    Kind.CHAT: "words",
}


@dataclass(frozen=True, slots=True)
class Given:
    """What is sent. `file` is the name of what was opened, "" for what was written."""

    kind: Kind
    data: bytes
    media: str
    file: str = ""


class Question:
    """Built for one model and one way to ask it; owns what was opened until something else is."""

    def __init__(self, model: Model, kind: Kind, bytes_max: int, ask: Callable[[Given], Awaitable[None]]) -> None:
        self._kind, self._bytes_max, self._ask = kind, bytes_max, ask
        self._opened: tuple[str, bytes, str] | None = None
        self._size = (0, 0)
        with box("question") as self._whole:
            words(f"Give {TITLES[kind]}", "soft")
            self._boxed = ui.element("div")
            if kind is Kind.PICTURE:
                with box("picture") as self._frame:
                    self._image = ui.element("img").props('alt="the picture to be asked about"')
                    self._over = ui.html("", sanitize=False).classes("over")
                self._image.on("load", self._measured, js_handler=browser.MEASURE)
                self._frame.set_visibility(False)
            if kind is Kind.SOUND:
                self._sound = ui.element("audio").props("controls")
                self._sound.set_visibility(False)
            with box("opened") as self._chip:
                self._name = words("", "clip")
                press("remove", self._drop)
            self._chip.set_visibility(False)
            with box("controls"):
                self._send = ui.element("button").classes("act main").props("type=button")
                with self._send:
                    words("Ask", tag="span")
                self._send.on("click", self._pressed, js_handler=browser.WRITTEN)
                opens = ui.element("button").classes("act").props("type=button")
                with opens:
                    words("Open a file", tag="span")
                opens.on("click", js_handler=browser.OPEN)
                self._samples(model)
            self._message = words("", "message bad").props("role=alert")
            self._upload = ui.upload(
                auto_upload=True, max_file_size=bytes_max, on_upload=self._uploaded, on_rejected=self._too_large
            ).classes("unseen")
            self._upload.props(f'accept="{FILES[kind]}"' if FILES[kind] else "")
            self._upload.on("added", self._begun, js_handler=browser.PREVIEW)
            self._upload.on(
                "failed", lambda: self._say("The file could not be taken over; is the console still there?")
            )
        self._say("")
        if kind in WRITTEN:
            self._begin(model)

    # -- what the playground says ------------------------------------------------------------

    def wait(self, waiting: bool) -> None:
        """While the model is asked, it is not asked again."""
        enable(self._send, not waiting)

    def mark(self, found: list[Box]) -> None:
        """Draw `found` over the picture."""
        if self._kind is Kind.PICTURE:
            width, height = self._size
            self._over.set_content(drawings.boxes(found, width, height) if found and width and height else "")

    # -- samples ------------------------------------------------------------

    def _samples(self, model: Model) -> None:
        """A button for each thing that may not be at hand."""
        if self._kind is Kind.SOUND:
            press("Make a 440 Hz tone", self._tone, "act")
        if self._kind is Kind.PICTURE:
            for title, drawn in (("Draw a receipt", browser.RECEIPT), ("Draw trousers", browser.TROUSERS)):
                button = ui.element("button").classes("act").props("type=button")
                with button:
                    words(title, tag="span")
                button.on("click", js_handler=drawn)
        if self._kind in WRITTEN:
            press("Example", lambda: self._begin(model), "act")

    def _begin(self, model: Model) -> None:
        """Write an example into the box; one that is too long for it is sent all the same."""
        self._drop()
        if self._kind is Kind.TENSORS:
            text, count = samples.tensors(model)
            if count <= samples.VALUES_WRITTEN_MAX:
                self._write(text)
                return
            self._write("")
            if text:
                self._take(f"zeros.json, {form.count(count)} zeros that fit", text.encode(), "")
            return
        self._write({Kind.TEXT: samples.TEXT, Kind.BYTES: samples.SOURCE, Kind.TABLE: samples.weeks()}[self._kind])

    def _tone(self) -> None:
        data = samples.tone()
        self._take("440hz.wav", data, "audio/wav")
        self._sound.set_visibility(True)
        source = json.dumps("data:audio/wav;base64," + base64.b64encode(data).decode())
        ui.run_javascript(f"document.getElementById({json.dumps(self._sound.html_id)}).src = {source}")

    # -- files ------------------------------------------------------------

    def _begun(self) -> None:
        self._say("")
        self.mark([])
        if self._kind is Kind.PICTURE:
            self._frame.set_visibility(True)
        if self._kind is Kind.SOUND:
            self._sound.set_visibility(True)

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        data = await event.file.read()
        self._upload.reset()
        if self._kind in WRITTEN and len(data) <= TEXT_MAX and (text := _text(data)) is not None:
            self._drop()
            self._write(text)
            return
        self._take(event.file.name, data, event.file.content_type)

    def _too_large(self) -> None:
        kinds = f" or is not {FILES[self._kind].replace(',', ', ')}" if FILES[self._kind] else ""
        self._say(f"The file is larger than {form.size(self._bytes_max)}{kinds}.")

    def _measured(self, event: events.GenericEventArguments) -> None:
        width, height = event.args
        self._size = (int(width), int(height))

    def _take(self, name: str, data: bytes, told: str) -> None:
        self._opened = (name[:200], data, told)
        say(self._name, f"{name[:200]} · {form.size(len(data))}")
        self._chip.set_visibility(True)
        self._boxed.set_visibility(False)
        self._say("")

    def _drop(self) -> None:
        self._opened = None
        self._chip.set_visibility(False)
        self._boxed.set_visibility(True)
        if self._kind is Kind.PICTURE:
            self._frame.set_visibility(False)
            self.mark([])
        if self._kind is Kind.SOUND:
            self._sound.set_visibility(False)

    # -- asking ------------------------------------------------------------

    def _write(self, text: str) -> None:
        """A new box that begins with `text`: what a reader changes in it stays in the browser until it is sent."""
        self._boxed.clear()
        with self._boxed:
            area = ui.html(html.escape(text), sanitize=False, tag="textarea").classes("write")
            area.props(f'rows=9 spellcheck=false maxlength={TEXT_MAX} aria-label="{TITLES[self._kind]}"')
            area.on("keydown", self._pressed, js_handler=browser.ENTER)

    async def _pressed(self, event: events.GenericEventArguments) -> None:
        if self._opened is not None:
            name, data, told = self._opened
            given = Given(self._kind, data, media_type(self._kind, data, told), name)
        elif self._kind in WRITTEN:
            data = str(event.args).encode("utf-8", "replace")
            given = Given(self._kind, data, media_type(self._kind, data))
        else:
            self._say("Open a file first.")
            return
        if not given.data:
            self._say("There is nothing to ask: write something, or open a file.")
            return
        self._say("")
        await self._ask(given)

    def _say(self, text: str) -> None:
        say(self._message, text)
        self._message.set_visibility(bool(text))


def _text(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None
