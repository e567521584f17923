"""One model's page: its versions, labels, what may be done to it, and the playground; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from tidemill.console.acts import Acts
from tidemill.console.api import State, View
from tidemill.console.catalogue import TONES, Known
from tidemill.console.pages.controls import Controls
from tidemill.console.pages.models import about, batches
from tidemill.console.pages.parts import box, press, say, tint, words
from tidemill.console.pages.playground import Playground
from tidemill.console.pages.versions import Versions
from tidemill.console.snapshot import Model


class ModelPage:
    """Built once a page, and told which model to show; then of every view."""

    def __init__(
        self, back: Callable[[], None], acts: Callable[[], Acts], changed: Callable[[], None], bytes_max: int
    ) -> None:
        self.name = ""
        self._described: Model | None = None
        with box("card wide-card", "section"):
            with box("top"):
                press("← All models", back)
                self._title = words("", "title", "h2")
                self._state = words("")
            self._gone = words("", "message bad").props("role=status")
            self._controls = Controls(acts, changed)
            with box("") as self._known:
                self._versions = Versions(acts, changed)
                self._batches = words("", "soft batches")
                with ui.element("details").classes("fold"):
                    words("Signature and call", tag="summary")
                    self._about = ui.element("div")
        self._gone.set_visibility(False)
        self._known.set_visibility(False)
        self._playground = Playground(acts, bytes_max, changed)

    def open(self, name: str) -> None:
        """Show `name` from now on."""
        self.name = name
        self._described = None
        say(self._title, name)

    def show(self, models: list[Known] | None, view: View) -> None:
        """Write down what `models` tells of the model, None while nothing is known."""
        model = next((each for each in models or () if each.name == self.name), None)
        gone = models is not None and model is None
        say(self._gone, f"There is no model {self.name!r} in the repository, or no longer: nothing can be done here.")
        self._gone.set_visibility(gone)
        self._known.set_visibility(model is not None)
        say(self._state, f"● {model.state}" if model else "" if gone else "asking …")
        tint(self._state, TONES.get(model.state, "warn") if model else "soft")
        service = view.overview.service if view.overview else None
        self._controls.show(model if view.state is State.LIVE else None)
        self._playground.show(model, service)
        if model is None:
            return
        self._versions.show(model)
        running = model.shown.running
        told = batches(running) if running is not None else ""
        say(self._batches, f"batches: {told}" if told else "")
        if service is not None and running is not None and running.inputs and self._changed(running):
            self._described = running
            self._about.clear()
            with self._about:
                about(running, service.http_url, service.auth)

    def _changed(self, running: Model) -> bool:
        """Whether what is written of the signature is another's; its counters stand in the table."""
        known = self._described
        return known is None or (known.key, known.inputs, known.outputs, batches(known)) != (
            running.key,
            running.inputs,
            running.outputs,
            batches(running),
        )
