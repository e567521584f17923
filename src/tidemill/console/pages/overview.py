"""The page: a live overview of one service, its models, and what compression made; in the console's process, one a
page."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from urllib.parse import quote, unquote

from nicegui import events, ui

from tidemill.console.api import Pollers, State, View
from tidemill.console.catalogue import merged
from tidemill.console.pages.catalogue import Catalogue
from tidemill.console.pages.compression import Compression
from tidemill.console.pages.curves import Curves
from tidemill.console.pages.head import Head
from tidemill.console.pages.jobs import Jobs
from tidemill.console.pages.key import KeyForm
from tidemill.console.pages.model import ModelPage
from tidemill.console.pages.models import Models
from tidemill.console.pages.parts import box, press
from tidemill.console.pages.tiles import Tiles
from tidemill.console.pages.usage import Usage

CONSOLE = Path(__file__).parent.parent
LOOK = (CONSOLE / "look.css").read_text()
MARK = (CONSOLE / "mark.svg").read_text()
TICK_S = 0.25
ADDRESSES = {"Overview": "/", "Models": "/models", "Compression": "/compression"}
"""Parts of one page, so that a key that was given holds for all; the browser's address and its way back go along."""
WENT_BACK = "<script>addEventListener('popstate', () => emitEvent('went', location.pathname))</script>"


class OverviewPage:
    """Looks at the poller of its key, and draws whenever that knows something new."""

    def __init__(self, pollers: Pollers, api: str, upload_bytes_max: int, first: str = "/") -> None:
        """`first` is the address of the view that is shown first."""
        self._address = first
        self._upload_bytes_max = upload_bytes_max
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
                for name in ADDRESSES:
                    self._tab(name)
            with ui.element("div") as self._views["Overview"]:
                self._tiles = Tiles()
                self._curves = Curves()
                self._models = Models(self._open_model)
                self._usage = Usage()
                self._jobs = Jobs()
            with ui.element("div") as self._views["Models"]:
                self._catalogue = Catalogue(self._open_model)
                with ui.element("div") as self._one:
                    self._model = ModelPage(
                        lambda: self._go("/models"),
                        lambda: self._poller.acts,
                        lambda: self._poller.refresh(),
                        self._upload_bytes_max,
                    )
            with ui.element("div") as self._views["Compression"]:
                self._compression = Compression(self._report)
        self._turn(self._address)
        ui.add_head_html(WENT_BACK)
        ui.on("went", self._went)
        ui.timer(0, self._learn_zone, once=True)
        ui.timer(TICK_S, self._tick)

    def _tab(self, name: str) -> None:
        button = press(name, lambda: self._go(ADDRESSES[name]), "view")
        self._tabs[name] = button

    def _open_model(self, name: str) -> None:
        self._go(f"/models/{quote(name, safe='')}")

    def _go(self, address: str) -> None:
        """Show the view of `address`, and let the browser find its way back from there."""
        ui.run_javascript(f"history.pushState(null, '', {json.dumps(address)}); scrollTo(0, 0)")
        self._turn(address)

    def _went(self, event: events.GenericEventArguments) -> None:
        self._turn(str(event.args))

    def _turn(self, address: str) -> None:
        """Show the view of `address`; the overview for one that is none's."""
        _, first, *rest = [*address.split("/", 2), ""]
        wanted = next((name for name, known in ADDRESSES.items() if known == f"/{first}"), "Overview")
        for name, button in self._tabs.items():
            self._views[name].set_visibility(name == wanted)
            button.classes(**{"add" if name == wanted else "remove": "shown"})
            button.props(f"aria-current={'page' if name == wanted else 'false'}")
        model = unquote(rest[0]) if wanted == "Models" else ""
        self._catalogue.card.set_visibility(not model)
        self._one.set_visibility(bool(model))
        if model != self._model.name:
            self._model.open(model)
        self._address = address
        self._drawn = -1

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
        self._jobs.show(view)
        self._compression.show(view)
        if self._address.startswith(ADDRESSES["Models"]):
            self._show_models(view)

    def _show_models(self, view: View) -> None:
        """Only what is looked at is drawn: a repository may hold many."""
        known = None if view.overview is None else merged(view.index, view.overview, view.lineage)
        if self._model.name:
            self._model.show(known, view)
        else:
            self._catalogue.show(known, view.index_message)
