"""All batches of a service: those that wait, those at work, and those on the shelf; belongs to the owner's loop.

Life: `open` before requests come, `run` once the models are loaded, `close` after both. Only one process at a time runs
the batches of a data folder; another that is started beside it waits until that has ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from tidemill.core.errors import (
    BatchState,
    ModelNotReady,
    TenantFull,
    TidemillError,
    UnknownBatch,
    UnknownFile,
)
from tidemill.core.request import Caller
from tidemill.core.settings import Settings
from tidemill.doors.openai.batch.bounds import bounds
from tidemill.doors.openai.batch.job import Job
from tidemill.doors.openai.batch.places import Places, wait
from tidemill.doors.openai.batch.shelf import Shelf
from tidemill.doors.openai.bounds import limits
from tidemill.doors.openai.door import Kind
from tidemill.observe.metrics import JobsSample
from tidemill.serve.answer import Service
from tidemill.serve.batch_state import ENDED
from tidemill.serve.gaps import next_job, pause_s
from tidemill.store import batches
from tidemill.store.batches import BatchRow, FileRow

log = logging.getLogger(__name__)

OWN_S: Final = 1.0
"""How often a process looks whether it may run the batches of its folder."""
AGAIN_S_MAX: Final = 60.0
"""Longest pause before a batch that could not go on is tried again."""
IDLE_S: Final = 60.0


class Desk:
    def __init__(
        self, service: Service, settings: Settings, kinds: Mapping[str, Kind], held: Callable[[str], int]
    ) -> None:
        """`kinds` are the sorts of requests by their addresses; `held` as `Places` wants it."""
        self.service = service
        self.bounds = bounds(settings)
        self.limits = limits(settings)
        self.kinds = kinds
        self.shelf = Shelf(settings.data_dir)
        self.places = Places(self.bounds.places, held)
        self.lines_completed = 0
        self.lines_failed = 0
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._running: dict[asyncio.Task[None], Job] = {}
        self._tries: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._owns = False

    async def open(self) -> None:
        """Raises `InvalidSetting`."""
        await self.shelf.open()
        await self._take_over()
        if not self._owns:
            log.warning("another process runs the batches of this data folder; this one waits for its end")

    async def run(self) -> None:
        """Have batches run, until it is cancelled; what was under way is taken up by the next process."""
        try:
            while True:
                while not self._owns:
                    await asyncio.sleep(OWN_S)
                    await self._take_over()
                self._begin()
                self._wake.clear()
                await wait(self._wake, IDLE_S)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        await self.shelf.close()

    async def pause(self, pause_s: float, halted: Callable[[], bool]) -> None:
        """Wait so long, less where `halted` says so."""
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0 and not halted():  # noqa: ASYNC110 - the clock halts it too
            await asyncio.sleep(min(left_s, 0.25))

    def counted(self, answered: bool) -> None:
        if answered:
            self.lines_completed += 1
        else:
            self.lines_failed += 1

    def sample(self) -> JobsSample:
        states = Counter(job.row.state for job in self._jobs.values())
        return JobsSample(states, self.lines_completed, self.lines_failed, self.places.lines)

    # -- what callers ask ----------------------------------------------------------------------------------------------

    async def add(self, row: BatchRow) -> BatchRow:
        """Take a new one. Raises `TenantFull`, `UnknownFile`, `ModelNotReady` where another process runs batches."""
        self._check_owned()
        if not await self.shelf.ask(batches.add_batch, row, self.bounds.unfinished_max):
            if await self.shelf.ask(batches.find_file, row.tenant, row.input_file) is None:
                raise unknown_file(row.input_file, "input_file_id")
            raise TenantFull(
                f"{self.bounds.unfinished_max} batches have not ended, the most allowed (--batches-unfinished-max);"
                " wait for one, or cancel one"
            )
        self._queue(Job(self, row))
        return row

    async def find(self, caller: Caller, batch_id: str) -> BatchRow:
        """Raises `UnknownBatch`."""
        row = await self.shelf.ask(batches.find_batch, caller.tenant, batch_id)
        if row is None:
            raise UnknownBatch(f"there is no batch {batch_id[:100]!r}", param="batch_id")
        return self.now(row)

    async def list(self, tenant: str | None, after: str, limit: int) -> list[BatchRow]:
        """Newest first."""
        return [self.now(row) for row in await self.shelf.ask(batches.batches, tenant, after, limit)]

    def now(self, row: BatchRow) -> BatchRow:
        """The batch as it is at this moment."""
        job = self._jobs.get(row.id)
        return row if job is None else job.told()

    async def cancel(self, caller: Caller, batch_id: str) -> BatchRow:
        """Raises `UnknownBatch`, and `BatchState` for one that has ended or is ending."""
        row = await self.find(caller, batch_id)
        if row.state in ENDED or row.state == "finalizing":
            raise BatchState(f"batch {batch_id} is {row.state}: there is nothing left to cancel", param="batch_id")
        self._check_owned()
        job = self._jobs.get(batch_id)
        if job is not None:
            await job.cancel()
            self._wake.set()
        return await self.find(caller, batch_id)

    async def file(self, caller: Caller, file_id: str, param: str = "file_id") -> FileRow:
        """Raises `UnknownFile`."""
        row = await self.shelf.ask(batches.find_file, caller.tenant, file_id)
        if row is None:
            raise unknown_file(file_id, param)
        return row

    async def remove_file(self, caller: Caller, file_id: str) -> None:
        """Raises `UnknownFile`, `BatchState` while a batch reads it."""
        await self.file(caller, file_id)
        reader = await self.shelf.ask(batches.remove_file, caller.tenant, file_id)
        if reader:
            raise BatchState(f"batch {reader} reads this file; cancel it, or wait for its end", param="file_id")
        await self.shelf.remove(file_id)

    # -- the work ------------------------------------------------------------------------------------------------------

    def _check_owned(self) -> None:
        if not self._owns:
            raise ModelNotReady("another process runs the batches of this data folder", retry_after_s=OWN_S)

    async def _take_over(self) -> None:
        """Take up what this process may run: what an earlier one left."""
        self._owns = await self.shelf.own()
        if not self._owns:
            return
        jobs = [Job(self, row) for row in await self.shelf.ask(batches.unfinished)]
        await self.shelf.sweep({name for job in jobs for name in job.files})
        for job in jobs:
            self._queue(job)

    def _queue(self, job: Job) -> None:
        self._jobs[job.row.id] = job
        self._waiting.append(job)
        self._wake.set()

    def _begin(self) -> None:
        for job in [each for each in self._waiting if each.cancelled]:  # they only write what they have
            self._waiting.remove(job)
            self._start(job)
        while len(self._running) < self.bounds.running_max:
            at_work = Counter(job.row.tenant for job in self._running.values())
            chosen = next_job([(job.row.tenant, job.row.id) for job in self._waiting], at_work)
            if chosen is None:
                return
            self._start(self._waiting.pop(chosen))

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._work(job))
        self._running[task] = job
        task.add_done_callback(self._ended)

    async def _work(self, job: Job) -> None:
        """What is known to pass, a full disk for one, is waited for; what nobody foresaw is tried `bounds.tries`
        times."""
        batch_id = job.row.id
        unforeseen = 0
        while True:
            try:
                if unforeseen < self.bounds.tries:
                    await job.run()
                else:
                    await job.fail("server_error", f"this server failed; its log tells more under {batch_id}")
                break
            except TidemillError as error:
                self._tries[batch_id] += 1
                log.warning("a batch cannot go on now: %s", error.message, extra={"batch": batch_id})
            except Exception:
                unforeseen += 1
                self._tries[batch_id] += 1
                log.exception("batch %s failed in a way that was not foreseen", batch_id)
                if unforeseen > self.bounds.tries:
                    break  # nor could its end be written: the next process takes it up
            await asyncio.sleep(pause_s(self._tries[batch_id] + 2, AGAIN_S_MAX))
        del self._tries[batch_id]

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        if not task.cancelled():
            self._jobs.pop(job.row.id, None)
        self._wake.set()


def unknown_file(file_id: str, param: str) -> UnknownFile:
    return UnknownFile(f"there is no file {file_id[:100]!r}", param=param)
