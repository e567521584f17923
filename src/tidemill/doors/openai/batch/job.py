"""One batch at work: reads its lines, has them answered in the gaps, keeps what comes; runs on the owner's loop.

Life: `run` takes it from the state that it is in to its end. Where it cannot go on (a full disk, a server that goes
down) it raises, and may be run again, by this process or the next: what is done stays done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from tidemill.core.contracts import Served
from tidemill.core.errors import (
    DiskFull,
    Draining,
    EngineFailed,
    LedgerUnavailable,
    LinkLost,
    ModelNotReady,
    Overloaded,
    PromptTooLong,
    RequestTooLarge,
    TidemillError,
    UpstreamFailed,
    WrongValue,
)
from tidemill.core.request import Caller, InferenceRequest
from tidemill.doors import way
from tidemill.doors.openai.asked import About, Asked, Whole, works
from tidemill.doors.openai.batch import line
from tidemill.doors.openai.batch.journal import Journal
from tidemill.doors.openai.batch.lines import Lines, TooManyLines
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.speaking import whole
from tidemill.serve.batch_state import ENDED, Seen, next_state
from tidemill.serve.gaps import pause_s
from tidemill.store import batches
from tidemill.store.batches import BatchRow, FileRow

if TYPE_CHECKING:
    from tidemill.doors.openai.batch.desk import Desk

log = logging.getLogger(__name__)

AGAIN = (Overloaded, ModelNotReady, EngineFailed, UpstreamFailed, LedgerUnavailable, LinkLost)
"""What may be otherwise in a moment."""

AT_ONCE = 64
"""Lines that are told together where nothing is asked for them."""


class Job:
    """`row` is the batch as it is; `completed` and `failed` count its lines."""

    def __init__(self, desk: Desk, row: BatchRow) -> None:
        self._desk = desk
        self.row = row
        self.completed = 0
        self.failed = 0
        self._total = row.total
        self._expired = 0
        self._done: set[int] = set()
        self._numbers: list[int] | None = None
        self._unreadable = False
        self._written = False
        self._failure: TidemillError | None = None
        self._lines: Lines | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cancelled = row.state == "cancelling"
        hexed = row.id.removeprefix("batch_")
        self.files = (f"file-{hexed}-output", f"file-{hexed}-errors")
        self._caller = Caller(row.tenant, row.key)

    def told(self) -> BatchRow:
        """The row with what is counted by now."""
        return msgspec.structs.replace(self.row, total=self._total, completed=self.completed, failed=self.failed)

    async def cancel(self) -> None:
        """Begin no further line."""
        self.cancelled = True
        if self.row.state in ("validating", "in_progress"):
            await self._enter("cancelling")

    def halted(self) -> bool:
        """Whether no further line begins."""
        return self.cancelled or self._is_expired() or self._failure is not None

    def _is_expired(self) -> bool:
        return time.time() >= self.row.expires_at

    async def run(self) -> None:
        """Raises `TidemillError` where it cannot go on now."""
        self._failure = None
        paths = [self._desk.shelf.path(each) for each in self.files]
        self._journal = Journal(paths[0], paths[1])
        self._lines = None
        try:
            await self._open()
            while self.row.state not in ENDED:
                await self._advance()
        finally:
            await self._let_go()

    async def fail(self, code: str, message: str) -> None:
        """End it as it is; what was answered stays in its files. Not while it runs."""
        self._refuse(code, message)
        await self._enter("failed")

    async def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.close()
        if self._lines is not None:
            self._lines.close()

    async def _open(self) -> None:
        """Read where the lines are, and which of them are done."""
        bounds, shelf = self._desk.bounds, self._desk.shelf
        done = await asyncio.to_thread(self._journal.recover)
        self._done, self.completed, self.failed, self._expired = done.numbers, done.completed, done.failed, done.expired
        try:
            self._lines = await asyncio.to_thread(
                Lines, shelf.path(self.row.input_file), bounds.line_bytes_max, bounds.lines_max
            )
        except TooManyLines:
            self._refuse("too_many_lines", f"the file has more than {bounds.lines_max} lines (--batch-lines-max)")
        except OSError as error:
            self._refuse("file_unreadable", f"the file cannot be read: {error.strerror}")
        else:
            self._numbers = self._lines.numbers
            self._total = len(self._numbers)
            if not self._numbers:
                self._refuse("empty_file", "the file holds no line")

    def _refuse(self, code: str, message: str) -> None:
        self._unreadable = True
        self.row = msgspec.structs.replace(self.row, failure={"code": code, "message": message})

    async def _advance(self) -> None:
        """Do the work of the state that it is in, then go to the next."""
        state = self.row.state
        if state == "in_progress":
            await self._answer_all()
        elif state in ("finalizing", "cancelling"):
            if state == "finalizing":
                await self._give_up_the_rest()
            self._written = True
        left = None if self._numbers is None else len(self._numbers) - len(self._done)
        seen = Seen(
            left=left,
            unreadable=self._unreadable,
            cancelled=self.cancelled,
            expired=self._is_expired(),
            late=self._expired > 0,
            at_work=len(self._tasks),
            written=self._written,
        )
        after = next_state(state, seen)
        if after != self.row.state:
            await self._enter(after)

    async def _enter(self, state: str) -> None:
        times = {**self.row.times, state: int(time.time())}
        row = msgspec.structs.replace(self.told(), state=state, times=times)
        if state not in ENDED:
            self.row = row
            await self._desk.shelf.ask(batches.save_batch, row)
            return
        await self._journal.close()
        written = list(await asyncio.to_thread(self._files_written, row))
        names = {each.id for each in written}
        output, errors = (each if each in names else "" for each in self.files)
        row = msgspec.structs.replace(row, output_file=output, error_file=errors)
        await self._desk.shelf.ask(batches.save_batch, row, written)
        self.row = row
        log.info("a batch has ended", extra={"batch": row.id, "state": state, "lines": row.total})

    def _files_written(self, row: BatchRow) -> Iterator[FileRow]:
        """Those of the two that hold anything; the other is removed."""
        for file_id, kind in zip(self.files, ("output", "error"), strict=True):
            path = self._desk.shelf.path(file_id)
            size_bytes = path.stat().st_size if path.exists() else 0
            if size_bytes:
                yield FileRow(
                    file_id, row.tenant, f"{row.id}_{kind}.jsonl", "batch_output", size_bytes, int(time.time())
                )
            else:
                path.unlink(missing_ok=True)

    async def _give_up_the_rest(self) -> None:
        left = self._left()
        for start in range(0, len(left), AT_ONCE):
            numbers = left[start : start + AT_ONCE]
            told = [await self._given_up(each) for each in numbers]
            await asyncio.gather(*(self._journal.append(False, each) for each in told))
            self._done.update(numbers)
            self.failed += len(numbers)
            self._expired += len(numbers)

    async def _given_up(self, number: int) -> bytes:
        raw = await self._raw(number)
        return line.given_up(self.row.id, number, None if raw is None else line.custom_id_of(raw))

    def _left(self) -> list[int]:
        return [number for number in self._numbers or () if number not in self._done]

    async def _raw(self, number: int) -> bytes | None:
        assert self._lines is not None  # noqa: S101 - opened by `run`
        return await asyncio.to_thread(self._lines.read, number)

    # -- lines ---------------------------------------------------------------------------------------------------------

    async def _answer_all(self) -> None:
        """Begin line after line, as places come free, and return when all that were begun are done."""
        for number in self._left():
            if self.halted():
                break
            raw = await self._raw(number)
            custom_id = None if raw is None else line.custom_id_of(raw)
            try:
                fields = self._fields(number, raw)
                served = await self._found(fields)
                asked = self._read(fields, served)
            except TidemillError as error:
                if isinstance(error, Draining):
                    raise
                self._begin(self._keep_error(number, custom_id, error, None))
                while len(self._tasks) >= AT_ONCE:  # so that many share one write
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            if not await self._desk.places.take(served, len(asked.works), self.halted):
                break
            self._begin(self._answer(number, custom_id, fields, served, asked))
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._failure is not None:
            raise self._failure

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fields(self, number: int, raw: bytes | None) -> Fields:
        bounds = self._desk.bounds
        assert self._lines is not None  # noqa: S101 - opened by `run`
        if raw is None:
            raise RequestTooLarge(f"line {number} has more than {bounds.line_bytes_max} bytes (--words-body-bytes-max)")
        fields = line.read(raw, self.row.endpoint, self._desk.limits.lax)
        if number in self._lines.twice:
            raise WrongValue(f"line {number}: an earlier line has the same custom_id", param="custom_id")
        return fields

    async def _found(self, fields: Fields) -> Served:
        """The model that the line asks; waits a while for one that is being loaded."""
        tries = 0
        while True:
            try:
                _, served = self._desk.kinds[self.row.endpoint].find({}, fields)
                return served
            except ModelNotReady:
                tries += 1
                if tries >= self._desk.bounds.tries or self.halted():
                    raise
                await self._desk.pause(pause_s(tries), self.halted)

    def _read(self, fields: Fields, served: Served) -> Asked:
        try:
            return self._desk.kinds[self.row.endpoint].read(fields, served, self._desk.limits)
        except TidemillError as error:
            self._desk.service.failed(served, error.code)
            raise

    async def _answer(self, number: int, custom_id: str | None, fields: Fields, served: Served, asked: Asked) -> None:
        """Has a place when it begins, and gives it back."""
        works = len(asked.works)
        tries = 0
        holds = True
        try:
            while True:
                try:
                    words = await self._words(number, fields, served, asked)
                    break
                except AGAIN as error:
                    self._desk.places.give_back(served, works)
                    holds = False
                    tries += 1
                    if tries >= self._desk.bounds.tries or self.halted():
                        raise
                    log.info("a line is tried again", extra={"batch": self.row.id, "line": number, "code": error.code})
                    await self._desk.pause(pause_s(tries), self.halted)
                    holds = await self._desk.places.take(served, works, self.halted)
                    if not holds:
                        return  # it has not run: it is left, or given up
                    served = self._desk.kinds[self.row.endpoint].find({}, fields)[1]
            if holds:
                self._desk.places.give_back(served, works)
                holds = False
            await self._journal.append(True, line.answered(self.row.id, number, custom_id, words))
            self._done.add(number)
            self.completed += 1
            self._desk.counted(True)
        except (Draining, DiskFull) as error:
            self._failure = self._failure or error
        except TidemillError as error:
            await self._keep_error(number, custom_id, error, served)
        except Exception:
            log.exception("a line failed in a way that was not foreseen")
            told = f"this server failed; its log tells more under {line.line_id(self.row.id, number)}"
            await self._keep_error(number, custom_id, TidemillError(told), served)
        finally:
            if holds:
                self._desk.places.give_back(served, works)

    async def _words(self, number: int, fields: Fields, served: Served, asked: Asked) -> bytes:
        desk, batch_id = self._desk, self.row.id
        desk.service.identity.check(self._caller)
        desk.service.gate.limit(self._caller, served)
        request_id = line.line_id(batch_id, number)
        until = way.deadline(None, desk.limits.timeout_s)
        charges = [line.charge_id(batch_id, number, index) for index in range(len(asked.works))]
        alias = way.alias_of(desk.service.fleet, str(fields.values["model"]))
        requests = [
            InferenceRequest(served.name, served.version, work, request_id, charge, until, batch=True, alias=alias)
            for work, charge in zip(works(asked), charges, strict=True)
        ]
        about = About(str(fields.values["model"]), request_id, int(time.time()), served)

        def word(told: list[Whole]) -> bytes:
            return orjson.dumps(asked.whole(about, told), option=orjson.OPT_SERIALIZE_NUMPY)

        return await whole(desk.service, self._caller, requests, word)

    async def _keep_error(
        self, number: int, custom_id: str | None, error: TidemillError, served: Served | None
    ) -> None:
        if isinstance(error, PromptTooLong) and error.param is None:
            error.param = self._desk.kinds[self.row.endpoint].prompt
        if served is not None:
            self._desk.service.failed(served, error.code)
        try:
            await self._journal.append(False, line.refused(self.row.id, number, custom_id, error))
        except TidemillError as failure:
            self._failure = failure
            return
        self._done.add(number)
        self.failed += 1
        self._desk.counted(False)
