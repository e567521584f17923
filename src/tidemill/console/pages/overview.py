"""The page: a live overview of one service, and what compression made; runs in the console's process, one a page."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path

from nicegui import ui

from tidemill.console.api import Pollers, State
from tidemill.console.pages.compression import Compression
from tidemill.console.pages.curves import Curves
from tidemill.console.pages.head import Head
from tidemill.console.pages.key import KeyForm
from tidemill.console.pages.models import Models
from tidemill.console.pages.parts import box
from tidemill.console.pages.tiles import Tiles
from tidemill.console.pages.usage import Usage

CONSOLE = Path(__file__).parent.parent
LOOK = (CONSOLE / "look.css").read_text()
MARK = (CONSOLE / "mark.svg").read_text()
TICK_S = 0.25
VIEWS = ("Overview", "Compression")
"""Parts of one page, so that a key that was given holds for both."""


class OverviewPage:
    """Looks at the poller of its key, and draws whenever that knows something new."""

    def __init__(self, pollers: Pollers, api: str, first: str = VIEWS[0]) -> None:
        self._first = first
        self._pollers = pollers
        self._poller = pollers.of()
        self._api = api
        self._drawn = -1
        self._tabs: dict[str, ui.element] = {}
        self._views: dict[str, ui.element] = {}
        self._zone: tzinfo | None = datetime.now(UTC).astimezone().tzinfo

    def build(self) -> None:
        """Lay the page out; called once, within the page."""
        ui.add_css(LOOK)
        self._head = Head(MARK, self._api, self._time_of_day)
        self._key = KeyForm(self._use)
        with ui.element("main") as self._main:
            with box("views", "nav"):
                for name in VIEWS:
                    self._tab(name)
            with ui.element("div") as self._views[VIEWS[0]]:
                self._tiles = Tiles()
                self._curves = Curves()
                self._models = Models()
                self._usage = Usage()
            with ui.element("div") as self._views[VIEWS[1]]:
                self._compression = Compression(self._report)
        self._turn(self._first)
        ui.timer(0, self._learn_zone, once=True)
        ui.timer(TICK_S, self._tick)

    def _tab(self, name: str) -> None:
        button = ui.element("button").props("type=button").classes("view")
        with button:
            ui.html(name, sanitize=False, tag="span")
        button.on("click", lambda: self._turn(name))
        self._tabs[name] = button

    def _turn(self, wanted: str) -> None:
        """Show one view."""
        for name in VIEWS:
            self._views[name].set_visibility(name == wanted)
            self._tabs[name].classes(**{"add" if name == wanted else "remove": "shown"})
            self._tabs[name].props(f"aria-current={'page' if name == wanted else 'false'}")

    async def _report(self, name: str, version: int) -> tuple[str, str]:
        return await self._poller.report(name, version)

    async def _learn_zone(self) -> None:
        """Times are told where the reader is, not where the service is."""
        try:
            minutes = await ui.run_javascript("new Date().getTimezoneOffset()", timeout=3.0)
        except TimeoutError:
            return
        if isinstance(minutes, int) and abs(minutes) < 24 * 60:
            self._zone = timezone(timedelta(minutes=-minutes))

    def _time_of_day(self, at: float) -> str:
        return datetime.fromtimestamp(at, self._zone).strftime("%H:%M:%S")

    def _use(self, key: str) -> None:
        self._poller = self._pollers.of(key)
        self._drawn = -1

    def _tick(self) -> None:
        view = self._poller.look()
        if view.revision == self._drawn:
            return
        self._drawn = view.revision
        self._head.show(view)
        self._key.show(view.state is State.REFUSED, view.message)
        self._main.set_visibility(view.state is not State.REFUSED)
        self._main.classes(**{"add" if view.state in (State.UNREACHABLE, State.STRANGE) else "remove": "stale"})
        history = self._poller.history
        now = time.time() if view.state is State.LIVE else view.since
        self._tiles.show(view.overview, history)
        self._curves.show(view.overview, history, now)
        self._models.show(view.overview, history.recent())
        self._usage.show(view)
        self._compression.show(view)
