"""Asks the admin API once a second for all who look with the same key; runs in the console's process.

Life of a poller: a page calls `look` whenever it draws. The first look starts the asking, `LOOK_S` after the last one
it stops, and the next look starts it again with the history that is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import quote

import httpx
import msgspec

from tidemill.console.acts import Acts
from tidemill.console.asking import Asking, Refused, Strange, Unreachable
from tidemill.console.rates import History
from tidemill.console.snapshot import (
    Compressed,
    Index,
    Indexed,
    Job,
    JobTable,
    LineageTable,
    Overview,
    UsageRow,
    UsageTable,
    parse,
)
from tidemill.core.contracts import Clock

INTERVAL_S = 1.0
REFUSED_INTERVAL_S = 10.0
USAGE_EVERY = 5
"""Usage is summed over the ledger, so it is asked every fifth time only."""
JOBS_EVERY = 2
LINEAGE_EVERY = 10
"""Lineage is read from disk, and changes when a model is published."""
INDEX_EVERY = 3
"""The index looks at the repository's folders."""
LOOK_S = 5.0
KEEP_S = 300.0
POLLERS_MAX = 16

Sleep = Callable[[float], Awaitable[None]]


class State(Enum):
    """How the last question to the service went."""

    WAITING = "waiting"
    LIVE = "live"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    STRANGE = "strange"
    """It answered, but not as an admin API does."""


@dataclass(frozen=True, slots=True)
class View:
    """What is known now. Unless LIVE, `overview` is the last that came, and `since` (Unix time) tells since when."""

    state: State = State.WAITING
    message: str = ""
    since: float = 0.0
    overview: Overview | None = None
    usage: tuple[UsageRow, ...] = ()
    usage_message: str = ""
    jobs: tuple[Job, ...] = ()
    lineage: tuple[Compressed, ...] = ()
    lineage_message: str = ""
    index: tuple[Indexed, ...] = ()
    index_message: str = ""
    revision: int = 0


class Poller:
    """One key's questions to one service, and what came of them."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        key: str = "",
        *,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.view = View(since=wall())
        self.history = History()
        self._service = Asking(http, key)
        self.acts = Acts(self._service)
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._looked = clock()
        self._asked = 0
        self._task: asyncio.Task[None] | None = None

    def look(self) -> View:
        """What is known now; keeps the asking going."""
        self._looked = self._clock()
        if not self.asking:
            self._asked = 0
            self._task = asyncio.get_running_loop().create_task(self._run())
        return self.view

    def refresh(self) -> None:
        """The next round asks for everything: something was changed."""
        self._asked = 0

    @property
    def asking(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def idle_s(self) -> float:
        """Time since the last look."""
        return self._clock() - self._looked

    async def stop(self) -> None:
        """Ends the asking at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self.idle_s < LOOK_S:
            await self.ask()
            await self._sleep(REFUSED_INTERVAL_S if self.view.state is State.REFUSED else INTERVAL_S)

    async def ask(self) -> None:
        """One round."""
        number, self._asked = self._asked, self._asked + 1
        try:
            overview: Overview = parse(Overview, await self._service.get("overview"))
            if number % USAGE_EVERY == 0:
                await self._ask_usage()
            if number % JOBS_EVERY == 0:
                await self._ask_jobs()
            if number % LINEAGE_EVERY == 0:
                await self._ask_lineage()
            if number % INDEX_EVERY == 0:
                await self._ask_index()
        except Refused as refusal:
            self._asked = 0
            self.history.clear()
            self._show(View(State.REFUSED, str(refusal), self._wall()))
        except Unreachable as cause:
            self._lost(State.UNREACHABLE, str(cause))
        except Strange as answer:
            self._lost(State.STRANGE, str(answer))
        except msgspec.DecodeError as error:
            self._lost(State.STRANGE, f"its overview cannot be read: {error}")
        else:
            at = self._wall()
            self.history.add(at, self._clock(), overview)
            self._show(replace(self.view, state=State.LIVE, message="", since=at, overview=overview))

    async def _ask_usage(self) -> None:
        """A service whose ledger is out of order still shows its overview."""
        try:
            table: UsageTable = parse(UsageTable, await self._service.get("usage"))
        except (Strange, msgspec.DecodeError) as answer:
            self.view = replace(self.view, usage_message=str(answer))
        else:
            self.view = replace(self.view, usage=table.rows, usage_message="")

    async def _ask_jobs(self) -> None:
        """As `_ask_usage`; a service of an earlier version has none."""
        with suppress(Strange, msgspec.DecodeError):
            table: JobTable = parse(JobTable, await self._service.get("batches"))
            self.view = replace(self.view, jobs=table.batches)

    async def _ask_lineage(self) -> None:
        """As `_ask_usage`; a service of an earlier version has none to tell."""
        try:
            table: LineageTable = parse(LineageTable, await self._service.get("lineage"))
        except (Strange, msgspec.DecodeError) as answer:
            self.view = replace(self.view, lineage_message=str(answer))
        else:
            self.view = replace(self.view, lineage=table.models, lineage_message="")

    async def _ask_index(self) -> None:
        """As `_ask_lineage`."""
        try:
            index: Index = parse(Index, await self._service.get("models"))
        except (Strange, msgspec.DecodeError) as answer:
            self.view = replace(self.view, index_message=str(answer))
        else:
            self.view = replace(self.view, index=index.models, index_message="")

    async def report(self, name: str, version: int) -> tuple[str, str]:
        """The report of a version as one HTML page, and "", or "" and why there is none."""
        try:
            body = await self._service.get(f"lineage/{quote(name, safe='')}/{version}/report.html")
        except (Refused, Strange, Unreachable) as answer:
            return "", str(answer)
        return body.decode("utf-8", "replace"), ""

    def _lost(self, state: State, message: str) -> None:
        """Keep what was known, and `since` at the last answer: a LIVE view's, or the one that this loss began at."""
        self._asked = 0
        self.history.miss(self._wall())
        self._show(replace(self.view, state=state, message=message))

    def _show(self, view: View) -> None:
        self.view = replace(view, revision=self.view.revision + 1)


@dataclass(slots=True)
class Pollers:
    """The poller of each key that pages look with; forgets a key `KEEP_S` after the last look."""

    http: httpx.AsyncClient
    clock: Clock = time.monotonic
    _known: dict[str, Poller] = field(default_factory=dict)

    def of(self, key: str = "") -> Poller:
        """The poller of `key`, a new one when it is not known."""
        self._forget(key)
        if key not in self._known:
            self._known[key] = Poller(self.http, key, clock=self.clock)
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def _forget(self, wanted: str) -> None:
        for key, poller in list(self._known.items()):
            if key != wanted and not poller.asking and poller.idle_s > KEEP_S:
                del self._known[key]
        while len(self._known) >= POLLERS_MAX and wanted not in self._known:
            # A poller that is dropped while a page still holds it lives on for that page and ends with it.
            del self._known[max(self._known, key=lambda key: self._known[key].idle_s)]
