"""What an operator may do to a model: load, look again, unload; runs in the console's process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from tidemill.console import format as form
from tidemill.console.acts import Acts
from tidemill.console.catalogue import Known
from tidemill.console.pages.parts import box, enable, press, say, tint, words

Act = Callable[[str], Awaitable[str]]


class Controls:
    """Built once a page. `acts` gives those of the page's key, `changed` is called when something was done."""

    def __init__(self, acts: Callable[[], Acts], changed: Callable[[], None]) -> None:
        self._acts, self._changed = acts, changed
        self._model: Known | None = None
        self._doing: dict[str, tuple[str, float]] = {}
        self._said: dict[str, tuple[str, str]] = {}
        with box("controls"):
            self._load = press("Load", self._on_load, "act")
            self._reload = press("Reload", self._on_reload, "act")
            self._reload.props["title"] = "looks at the disk again: new, changed and refused versions are loaded"
            self._unload = press("Unload", self._ask, "act")
        with box("progress") as self._progress:
            ui.element("progress").props["aria-label"] = "at work"
            self._working = words("", "soft")
        self._message = words("", "message").props("role=status")
        with ui.dialog() as self._sure, ui.card().classes("sheet ask-twice").props("flat"):
            self._title = words("", tag="h2")
            words("Requests that run are finished; new ones are answered 404 until the model is loaded again.", tag="p")
            with box("controls"):
                press("Unload it", self._on_unload, "act danger")
                press("Keep it", self._sure.close, "act")
        self.show(None)

    def show(self, model: Known | None) -> None:
        """Offer what fits `model`; nothing for one that is gone."""
        self._model = model
        name = model.name if model else ""
        word, since = self._doing.get(name, ("", 0.0))
        busy = bool(word) or (model is not None and model.busy)
        running = [version for version in model.versions if version.running] if model else []
        self._load.set_visibility(model is not None and not running)
        self._reload.set_visibility(bool(running))
        self._unload.set_visibility(bool(running))
        for button in (self._load, self._reload, self._unload):
            enable(button, not busy)
        self._progress.set_visibility(busy)
        spent = f" for {form.age(time.monotonic() - since)}" if word else ""
        states = {version.state for version in model.versions} if model else set()
        say(self._working, f"{word or ('unloading' if 'UNLOADING' in states else 'loading')}{spent} …")
        text, tone = self._said.get(name, ("", ""))
        say(self._message, text)
        tint(self._message, tone)
        self._message.set_visibility(bool(text))

    async def _on_load(self) -> None:
        await self._do("loading", "loaded", self._acts().load)

    async def _on_reload(self) -> None:
        await self._do("reloading", "as it is on disk", self._acts().load)

    def _ask(self) -> None:
        if self._model is not None:
            say(self._title, f"Unload {self._model.name}?")
            self._sure.open()

    async def _on_unload(self) -> None:
        self._sure.close()
        await self._do("unloading", "unloaded", self._acts().unload)

    async def _do(self, word: str, done: str, act: Act) -> None:
        """One thing at a time for each model; the page may show another one meanwhile."""
        model = self._model
        if model is None or model.name in self._doing:
            return
        name = model.name
        self._doing[name] = (word, time.monotonic())
        self._said.pop(name, None)
        self.show(model)
        try:
            why = await act(name)
        finally:
            del self._doing[name]
        self._said[name] = (why, "bad") if why else (f"{name} is {done}.", "fine")
        self._changed()
        self.show(self._model)
