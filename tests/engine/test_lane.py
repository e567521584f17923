"""What stands before one engine. The engines wait on gates that the tests hold; the clock is the tests' own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_engines import POISON, WAIT_S_MAX, FirstRowOnly, Odd, Raising, SmallEngine, ask
from tidemill.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    ModelNotReady,
    Overloaded,
    RefusedByEngine,
    TidemillError,
)
from tidemill.core.request import InferenceRequest, Predict
from tidemill.core.running import Timed
from tidemill.core.tensor import Signature, Tensors, TensorSpec
from tidemill.engine.lane import Lane, LanePolicy, zeros_for
from tidemill.engine.run_batch import Outcome
from tidemill.observe.stats import ModelStats

NEVER_INLINE, ALWAYS_INLINE = 0.0, 1e9


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A lane, what it owns, and the way to hold its engine."""

    def __init__(
        self,
        engine: SmallEngine,
        *,
        batched: bool,
        rows_max: int,
        waiting_max: int,
        inline: bool,
        delay_s_max: float = 0.0,
        preferred: tuple[int, ...] = (),
    ) -> None:
        self.engine = engine
        self.clock = Clock()
        self.stats = ModelStats()
        inline_s_max = ALWAYS_INLINE if inline else NEVER_INLINE
        policy = LanePolicy(batched, rows_max, waiting_max, inline_s_max, None, delay_s_max, preferred)
        self.lane = Lane(engine, policy, self.stats, self.clock, 1e-6)

    async def hold(self) -> asyncio.Future[Tensors]:
        """A request that the engine works on until `release`."""
        self.engine.gate.clear()
        self.engine.entered.clear()
        held = self.lane.submit(ask(1000))
        assert await asyncio.to_thread(self.engine.entered.wait, WAIT_S_MAX)
        return held

    def release(self) -> None:
        self.engine.gate.set()


@asynccontextmanager
async def bench(
    engine: SmallEngine | None = None,
    *,
    batched: bool = True,
    rows_max: int = 8,
    waiting_max: int = 100,
    inline: bool = False,
    delay_s_max: float = 0.0,
    preferred: tuple[int, ...] = (),
) -> AsyncIterator[Bench]:
    made = Bench(
        engine or SmallEngine(),
        batched=batched,
        rows_max=rows_max,
        waiting_max=waiting_max,
        inline=inline,
        delay_s_max=delay_s_max,
        preferred=preferred,
    )
    try:
        yield made
    finally:
        made.release()
        await within(made.lane.close())


async def within(awaited: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaited, WAIT_S_MAX)


async def answers(*futures: asyncio.Future[Tensors]) -> list[Any]:
    """What each came to: its values, or its error."""
    ended = await within(asyncio.gather(*futures, return_exceptions=True))
    return [each if isinstance(each, BaseException) else each["y"].ravel().tolist() for each in ended]


@pytest.mark.parametrize("inline", [True, False])
async def test_each_gets_its_own_rows(inline: bool) -> None:
    async with bench(inline=inline) as b:
        futures = [b.lane.submit(ask(*range(start, start + 1 + start % 3))) for start in range(20)]
        assert await answers(*futures) == [
            [2.0 * value for value in range(start, start + 1 + start % 3)] for start in range(20)
        ]
        assert not b.engine.overlapped


async def test_what_waits_while_the_engine_works_runs_as_one_batch_at_once_after_it() -> None:
    async with bench(rows_max=8) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(value)) for value in range(10)]
        assert b.lane.waiting == 10
        b.release()
        await answers(held, *waiting)
        assert b.engine.calls == [[1000], list(range(8)), [8, 9]]


async def test_idle_engine_starts_at_once_with_one() -> None:
    async with bench() as b:
        await answers(b.lane.submit(ask(1)))
        assert b.engine.calls == [[1]]


async def test_request_larger_than_a_batch_is_asked_in_parts_and_answered_and_counted_as_one() -> None:
    async with bench(rows_max=3) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(2, 3, 4, 5, 6)), b.lane.submit(ask(7))]
        b.release()
        assert await answers(held, *waiting) == [[2000], [2], [4, 6, 8, 10, 12], [14]]
        assert b.engine.calls[1:] == [[1], [2, 3, 4], [5, 6, 7]]
        assert (b.stats.requests, b.stats.rows) == (4, 8)


async def test_one_bad_row_of_a_request_larger_than_a_batch_fails_it_and_no_other() -> None:
    async with bench(rows_max=2) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(2, 3, POISON, 5, 6, 7, 8)), b.lane.submit(ask(9))]
        b.release()
        found = await answers(held, *waiting)
        assert isinstance(found[2], RefusedByEngine)
        assert (found[1], found[3]) == ([2], [18])
        assert b.stats.requests == 3


async def test_a_large_request_waits_as_one() -> None:
    async with bench(rows_max=2, waiting_max=2) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(*range(50))), b.lane.submit(ask(9))]
        assert b.lane.waiting == 2
        b.release()
        assert await answers(held, *waiting) == [[2000], [2.0 * value for value in range(50)], [18]]


async def test_parts_of_a_request_that_was_taken_back_never_reach_the_engine() -> None:
    async with bench(rows_max=2) as b:
        held = await b.hold()
        large, small = b.lane.submit(ask(*range(7))), b.lane.submit(ask(9))
        large.cancel()
        b.release()
        assert await answers(held, small) == [[2000], [18]]
        assert b.engine.calls[1:] == [[9]]


async def test_large_request_runs_whole_when_the_model_does_not_keep_rows_apart_after_all() -> None:
    async with bench(FirstRowOnly(), rows_max=2) as b:
        assert await answers(b.lane.submit(ask(1, 2, 3, 4))) == [[2]]
        assert b.engine.calls[-1] == [1, 2, 3, 4]
        await answers(b.lane.submit(ask(5, 6, 7)))
        assert b.engine.calls[-1] == [5, 6, 7]


async def test_requests_for_other_outputs_do_not_share_a_batch() -> None:
    async with bench() as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(value, outputs=outputs)) for value, outputs in ((1, ()), (2, ("y",)), (3, ("y",)))]
        b.release()
        await answers(held, *waiting)
        assert b.engine.calls[1:] == [[1], [2, 3]]


async def test_model_without_a_batch_dimension_is_asked_singly() -> None:
    async with bench(batched=False) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(value)) for value in range(3)]
        b.release()
        assert await answers(held, *waiting) == [[2000], [0], [2], [4]]
        assert b.engine.calls == [[1000], [0], [1], [2]]


async def test_request_without_rows_runs_alone() -> None:
    async with bench() as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask()), b.lane.submit(ask(2))]
        b.release()
        assert await answers(held, *waiting) == [[2000], [2], [], [4]]


async def test_queue_is_bounded_and_the_one_that_works_does_not_count() -> None:
    async with bench(waiting_max=2) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(2))]
        with pytest.raises(Overloaded, match="--queue-max") as caught:
            b.lane.submit(ask(3))
        assert caught.value.retry_after_s
        b.release()
        assert await answers(held, *waiting) == [[2000], [2], [4]]
        assert await answers(b.lane.submit(ask(3))) == [[6]]


async def test_deadline_that_has_passed_never_reaches_the_engine() -> None:
    async with bench() as b:
        held = await b.hold()
        late, in_time = b.lane.submit(ask(1, deadline=5)), b.lane.submit(ask(2, deadline=7))
        b.clock.now = 6
        b.release()
        found = await answers(held, late, in_time)
        assert isinstance(found[1], DeadlineExceeded)
        assert found[2] == [4]
        assert b.engine.calls == [[1000], [2]]


async def test_deadline_is_told_while_the_engine_works_on() -> None:
    """Those that wait and the one that runs learn it although the engine does not move."""
    async with bench() as b:
        await b.hold()
        b.release()
        await b.lane.drain()
        b.engine.gate.clear()
        b.engine.entered.clear()
        running = b.lane.submit(ask(1, deadline=5))
        assert await asyncio.to_thread(b.engine.entered.wait, WAIT_S_MAX)
        waiting = b.lane.submit(ask(2, deadline=5))
        patient = b.lane.submit(ask(3))
        b.clock.now = 6
        assert [type(each) for each in await answers(running, waiting)] == [DeadlineExceeded] * 2
        assert not patient.done()
        b.release()
        assert await answers(patient) == [[6]]
        assert b.engine.calls[2:] == [[3]]


async def test_request_taken_back_before_dispatch_never_reaches_the_engine() -> None:
    async with bench() as b:
        held = await b.hold()
        first, second, third = (b.lane.submit(ask(value)) for value in range(3))
        second.cancel()
        b.release()
        assert await answers(first, third) == [[0], [4]]
        await answers(held)
        assert b.engine.calls == [[1000], [0, 2]]


async def test_request_taken_back_at_once_never_reaches_the_engine() -> None:
    async with bench() as b:
        b.lane.submit(ask(1)).cancel()
        await within(b.lane.drain())
        assert b.engine.calls == []
        assert await answers(b.lane.submit(ask(2))) == [[4]]


async def test_request_taken_back_while_it_runs_harms_nobody() -> None:
    async with bench() as b:
        held = await b.hold()
        other = b.lane.submit(ask(1))
        held.cancel()
        b.release()
        assert await answers(other) == [[2]]
        assert b.stats.requests == 1


async def test_places_of_those_who_left_are_free_again_once_the_engine_is() -> None:
    async with bench(waiting_max=2) as b:
        held = await b.hold()
        for future in [b.lane.submit(ask(1)), b.lane.submit(ask(2))]:
            future.cancel()
        b.release()
        await answers(held)
        await within(b.lane.drain())
        assert b.lane.waiting == 0
        await answers(b.lane.submit(ask(3)), b.lane.submit(ask(4)))


@pytest.mark.parametrize("inline", [True, False])
async def test_poisoned_request_fails_alone(inline: bool) -> None:
    async with bench(inline=inline) as b:
        futures = [b.lane.submit(ask(value)) for value in (1, POISON, 3)]
        found = await answers(*futures)
        assert [found[0], found[2]] == [[2], [6]]
        assert isinstance(found[1], RefusedByEngine)


@pytest.mark.parametrize("inline", [True, False])
async def test_request_that_makes_the_engine_break_fails_alone(inline: bool) -> None:
    engine = Raising(lambda: KeyError("what broke"), always=False)
    async with bench(engine, inline=inline) as b:
        found = await answers(*[b.lane.submit(ask(value)) for value in (1, POISON - 1, 3)])
        assert [found[0], found[2]] == [[2], [6]]
        assert isinstance(found[1], EngineFailed)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    "make", [ValueError, MemoryError, RecursionError, StopIteration, AssertionError, asyncio.TimeoutError]
)
async def test_whatever_an_engine_raises_is_answered_and_the_lane_lives(
    make: Callable[[], Exception], inline: bool
) -> None:
    engine = Raising(make)
    async with bench(engine, inline=inline) as b:
        assert [type(each) for each in await answers(b.lane.submit(ask(1)), b.lane.submit(ask(2)))] == [
            EngineFailed
        ] * 2
        engine.always = False
        assert await answers(b.lane.submit(ask(3))) == [[6]]


@pytest.mark.parametrize("inline", [True, False])
async def test_model_that_does_not_keep_rows_apart_is_asked_singly(inline: bool) -> None:
    async with bench(FirstRowOnly(), inline=inline) as b:
        for _ in range(2):
            futures = [b.lane.submit(ask(value)) for value in range(4)]
            assert await answers(*futures) == [[0], [2], [4], [6]]
        joined = [call for call in b.engine.calls if len(call) > 1]
        assert len(joined) == 1, "it was tried once, and learnt from"


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("answered", [None, [1, 2], {"y": [1, 2]}, {"y": 1.0}], ids=str)
async def test_engine_that_answers_with_no_arrays_does_not_stop_the_lane(answered: Any, inline: bool) -> None:
    b = Bench(Odd(answered), batched=True, rows_max=8, waiting_max=8, inline=inline)
    futures = [b.lane.submit(ask(1)), b.lane.submit(ask(2))]
    ended, missing = await asyncio.wait(futures, timeout=0.1)
    assert not missing
    assert all(isinstance(each.exception(), TidemillError) for each in ended)
    await within(b.lane.close())


async def test_close_answers_what_waits_and_refuses_what_comes() -> None:
    b = Bench(SmallEngine(), batched=True, rows_max=2, waiting_max=100, inline=False)
    held = await b.hold()
    waiting = [b.lane.submit(ask(value)) for value in range(5)]
    closing = asyncio.create_task(b.lane.close())
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady, match="being unloaded"):
        b.lane.submit(ask(9))
    assert not b.engine.closed
    b.release()
    await within(closing)
    assert await answers(held, *waiting) == [[2000], [0], [2], [4], [6], [8]]
    assert b.engine.closed == 1


@pytest.mark.parametrize("inline", [True, False])
async def test_close_of_an_idle_lane_gives_the_engine_back(inline: bool) -> None:
    b = Bench(SmallEngine(), batched=True, rows_max=2, waiting_max=100, inline=inline)
    await within(b.lane.drain())
    await within(b.lane.close())
    assert b.engine.closed == 1


async def test_drain_waits_for_what_runs_and_what_waits() -> None:
    async with bench() as b:
        held = await b.hold()
        waiting = b.lane.submit(ask(1))
        draining = asyncio.create_task(b.lane.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        b.release()
        await within(draining)
        assert held.done()
        assert waiting.done()


async def test_only_what_was_answered_is_counted() -> None:
    async with bench() as b:
        held = await b.hold()
        cancelled, late = b.lane.submit(ask(1)), b.lane.submit(ask(2, deadline=5))
        poisoned, good = b.lane.submit(ask(POISON)), b.lane.submit(ask(3, 4))
        cancelled.cancel()
        b.clock.now = 6
        b.release()
        await answers(held, late, poisoned, good)
        assert (b.stats.requests, b.stats.rows) == (2, 3)
        assert b.stats.latency.count == 2


async def test_two_requests_with_other_widths_are_not_joined() -> None:
    wide = InferenceRequest("m", 1, Predict({"x": np.ones((1, 3), np.float32)}), "r", "c", float("inf"))
    async with bench() as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(wide), b.lane.submit(ask(2))]
        b.release()
        assert await answers(held, *waiting) == [[2000], [2], [2, 2, 2], [4]]


actions = st.lists(st.tuples(st.sampled_from(["ask", "poison", "cancel", "late"]), st.integers(1, 4)), max_size=25)


@settings(max_examples=30, deadline=None)
@given(actions, st.integers(1, 6), st.booleans())
def test_every_request_gets_exactly_its_own_answer(script: list[tuple[str, int]], rows_max: int, inline: bool) -> None:
    """Goal: whatever comes together, nobody is lost, and nobody gets what is another's. Method: any script at once."""

    async def play() -> None:
        async with bench(rows_max=rows_max, inline=inline) as b:
            futures = []
            for number, (kind, count) in enumerate(script):
                values = [POISON if kind == "poison" else float(number * 10 + row) for row in range(count)]
                futures.append((kind, values, b.lane.submit(ask(*values, deadline=-1 if kind == "late" else 1e9))))
                if kind == "cancel":
                    futures[-1][2].cancel()
            for (kind, values, _), found in zip(futures, await answers(*[each[2] for each in futures]), strict=True):
                if kind == "ask":
                    assert found == [value * 2 for value in values]
                else:
                    expected = {"poison": RefusedByEngine, "cancel": asyncio.CancelledError, "late": DeadlineExceeded}
                    assert type(found) is expected[kind]
            assert all(len(call) <= rows_max for call in b.engine.calls)

    asyncio.run(play())


class Narrow:
    """Two engines side by side beside the wide one, all held at gates."""

    def __init__(self, rows_max: int = 8) -> None:
        self.wide, self.first, self.second = SmallEngine(), SmallEngine(), SmallEngine()
        policy = LanePolicy(True, rows_max, 1000, NEVER_INLINE)
        self.clock = Clock()
        self.lane = Lane(self.wide, policy, ModelStats(), self.clock, 1.0, (self.first, self.second))

    def calls(self) -> tuple[int, int, int]:
        return len(self.wide.calls), len(self.first.calls), len(self.second.calls)


async def test_one_after_the_other_they_get_all_cores() -> None:
    n = Narrow()
    for value in range(10):
        assert await answers(n.lane.submit(ask(value))) == [[2 * value]]
    assert n.calls() == (10, 0, 0)
    await within(n.lane.close())
    assert [n.wide.closed, n.first.closed, n.second.closed] == [1, 1, 1]


async def test_many_at_once_are_shared_out_among_the_engines() -> None:
    n = Narrow()
    for engine in (n.wide, n.first, n.second):
        engine.gate.clear()
    futures = [n.lane.submit(ask(value)) for value in range(8)]
    assert await asyncio.to_thread(n.first.entered.wait, WAIT_S_MAX)
    assert await asyncio.to_thread(n.second.entered.wait, WAIT_S_MAX)
    assert (n.first.calls, n.second.calls, n.wide.calls) == ([[0, 1, 2, 3]], [[4, 5, 6, 7]], [])
    more = n.lane.submit(ask(9))
    n.second.entered.clear()
    n.second.gate.set()
    assert await answers(*futures[4:], more) == [[8], [10], [12], [14], [18]]
    assert n.first.running, "one engine works on while the other has taken the next"
    n.first.gate.set()
    assert await answers(*futures[:4]) == [[0], [2], [4], [6]]
    n.wide.gate.set()
    await within(n.lane.close())


async def test_wide_and_narrow_never_run_at_once() -> None:
    n = Narrow()
    n.wide.gate.clear()
    futures = [n.lane.submit(ask(0))]
    assert await asyncio.to_thread(n.wide.entered.wait, WAIT_S_MAX)
    futures += [n.lane.submit(ask(value)) for value in range(1, 20)]
    await asyncio.sleep(0)
    assert n.calls() == (1, 0, 0)
    n.wide.gate.set()
    assert await answers(*futures) == [[2 * value] for value in range(20)]
    assert n.first.calls
    assert n.second.calls
    await within(n.lane.close())


async def test_deadline_is_told_to_what_runs_on_any_engine() -> None:
    n = Narrow()
    for engine in (n.wide, n.first, n.second):
        engine.gate.clear()
    futures = [n.lane.submit(ask(value, deadline=5)) for value in range(8)]
    assert await asyncio.to_thread(n.second.entered.wait, WAIT_S_MAX)
    n.clock.now = 6
    assert [type(each) for each in await answers(*futures)] == [DeadlineExceeded] * 8
    for engine in (n.wide, n.first, n.second):
        engine.gate.set()
    await within(n.lane.close())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=40), st.integers(1, 6))
def test_side_by_side_every_request_gets_its_own_answer(counts: list[int], rows_max: int) -> None:
    async def play() -> None:
        n = Narrow(rows_max)
        rows = [[float(number * 10 + row) for row in range(count)] for number, count in enumerate(counts)]
        found = await answers(*[n.lane.submit(ask(*values)) for values in rows])
        assert found == [[2 * value for value in values] for values in rows]
        assert not any(engine.overlapped for engine in (n.wide, n.first, n.second))
        await within(n.lane.close())

    asyncio.run(play())


def test_zeros_fit_the_signature() -> None:
    signature = Signature(
        (TensorSpec("a", "FP32", (-1, -1, 3)), TensorSpec("b", "BYTES", (-1,)), TensorSpec("c", "BOOL", ()),
         TensorSpec("d", "INT8", None), TensorSpec("e", "BF16", (0, 2))),
        (),
    )  # fmt: skip
    zeros = zeros_for(signature)
    signature.check(zeros)
    assert zeros["b"].tolist() == [b""]
    assert zeros["a"].shape == (1, 1, 3)


async def test_failure_is_logged_without_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench(Raising(ValueError)) as b:
        await answers(b.lane.submit(ask(31337.5)), b.lane.submit(ask(31337.5)))
    assert caplog.records
    assert "31337" not in caplog.text


async def test_runs_are_counted_by_their_rows_and_for_each_request_that_shared_them() -> None:
    async with bench(rows_max=8) as b:
        held = await b.hold()
        b.clock.now = 3
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(2, 3))]
        b.release()
        await answers(held, *waiting)
        counts = b.stats.counts(now=5.0, now_ms=10_000.0)
    assert counts.runs == 2
    assert [(each.rows, each.infer.count) for each in counts.batches] == [(1, 1), (3, 1)]
    assert counts.infer.count == counts.success.count == counts.queued.count == 3
    alone, together = counts.batches
    assert counts.infer.ns == pytest.approx(alone.infer.ns + 2 * together.infer.ns, abs=3)
    assert counts.infer.ns > 0
    assert counts.rows == 4
    assert counts.last_ms == 8_000


async def test_each_part_of_the_time_of_a_request_is_told_apart() -> None:
    async with bench(rows_max=8) as b:
        held = await b.hold()
        b.clock.now = 1
        waiting = b.lane.submit(ask(1))
        b.clock.now = 4
        b.release()
        await answers(held, waiting)
        counts = b.stats.counts(0.0, 0.0)
    assert counts.queued == Timed(2, 3_000_000_000)
    assert counts.success == Timed(2, 7_000_000_000)


async def test_what_was_not_answered_counts_in_no_part_of_the_time() -> None:
    async with bench(rows_max=8) as b:
        held = await b.hold()
        gone, spoiled, late = b.lane.submit(ask(1)), b.lane.submit(ask(POISON)), b.lane.submit(ask(3, deadline=1))
        b.clock.now = 2
        gone.cancel()
        b.release()
        await answers(held, spoiled, late)
        counts = b.stats.counts(0.0, 0.0)
    assert [counts.success.count, counts.queued.count, counts.infer.count, counts.output.count] == [1] * 4
    assert counts.queued.ns == 0
    assert counts.failed.ns == 4_000_000_000


async def test_request_that_was_cut_into_batches_counts_once_with_all_of_them() -> None:
    async with bench(rows_max=2) as b:
        held = await b.hold()
        cut = b.lane.submit(ask(1, 2, 3, 4, 5))
        b.clock.now = 3
        b.release()
        await answers(held, cut)
        counts = b.stats.counts(0.0, 0.0)
    assert [(each.rows, each.infer.count) for each in counts.batches] == [(1, 2), (2, 2)]
    assert counts.success.count == counts.queued.count == counts.infer.count == 2
    assert counts.infer.ns == pytest.approx(sum(each.infer.ns for each in counts.batches), abs=4)
    assert counts.queued.ns == 3_000_000_000
    assert (counts.rows, counts.runs) == (6, 4)


async def test_requests_of_a_spoiled_batch_are_counted_as_the_runs_that_they_were() -> None:
    async with bench(rows_max=8) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(POISON)), b.lane.submit(ask(2, 3))]
        b.clock.now = 2
        b.release()
        await answers(held, *waiting)
        counts = b.stats.counts(0.0, 0.0)
    assert counts.runs == counts.success.count == 3
    assert [(each.rows, each.infer.count) for each in counts.batches] == [(1, 2), (2, 1)]
    assert counts.failed.ns == 2_000_000_000


async def test_what_missed_its_deadline_counts_the_time_that_it_waited() -> None:
    async with bench() as b:
        held = await b.hold()
        late = b.lane.submit(ask(1, deadline=5))
        b.clock.now = 6
        b.release()
        await answers(held, late)
        assert b.stats.counts(0.0, 0.0).failed.ns == 6_000_000_000
        assert b.stats.runs == 1


async def test_batches_at_once_are_as_many_as_engines_side_by_side() -> None:
    n = Narrow()
    assert n.lane.instances == 2
    await within(n.lane.close())
    async with bench() as b:
        assert b.lane.instances == 1


async def test_a_batch_waits_for_others_where_it_may_and_starts_when_it_is_full() -> None:
    async with bench(rows_max=3, delay_s_max=3600.0) as b:
        first = b.lane.submit(ask(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b.engine.calls == []
        assert await answers(first, b.lane.submit(ask(2)), b.lane.submit(ask(3))) == [[2], [4], [6]]
        assert b.engine.calls == [[1, 2, 3]]


async def test_a_batch_that_waited_long_enough_starts_as_it_is() -> None:
    async with bench(rows_max=3, delay_s_max=0.02) as b:
        waiting = [b.lane.submit(ask(1)), b.lane.submit(ask(2))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b.engine.calls == []
        b.clock.now += 0.02
        assert await answers(*waiting) == [[2], [4]]
        assert b.engine.calls == [[1, 2]]


async def test_closing_does_not_wait_for_the_others() -> None:
    async with bench(rows_max=3, delay_s_max=3600.0) as b:
        waiting = b.lane.submit(ask(1))
        await asyncio.sleep(0)
        await within(b.lane.close())
        assert await answers(waiting) == [[2]]


async def test_batches_have_the_largest_preferred_size_that_is_at_hand() -> None:
    async with bench(rows_max=8, preferred=(2, 4)) as b:
        held = await b.hold()
        waiting = [b.lane.submit(ask(value)) for value in range(7)]
        b.release()
        await answers(held, *waiting)
        assert b.engine.calls[1:] == [[0, 1, 2, 3], [4, 5], [6]]


async def test_what_runs_singly_waits_for_nobody() -> None:
    async with bench(rows_max=3, batched=False, delay_s_max=3600.0) as b:
        assert await answers(b.lane.submit(ask(1))) == [[2]]


async def test_a_quick_model_runs_on_the_loop_on_one_core_however_many_wait() -> None:
    wide, narrow = SmallEngine(), [SmallEngine(), SmallEngine()]
    policy = LanePolicy(batched=True, rows_max=8, waiting_max=100, inline_s_max=ALWAYS_INLINE)
    lane = Lane(wide, policy, ModelStats(), Clock(), 1e-6, narrow)
    futures = [lane.submit(ask(number)) for number in range(20)]
    assert await answers(*futures) == [[2.0 * number] for number in range(20)]
    await within(lane.close())
    assert (wide.calls, narrow[1].calls) == ([], [])
    assert sum(map(len, narrow[0].calls)) == 20


async def test_a_model_that_held_the_loop_leaves_it_until_it_was_quick_many_times() -> None:
    policy = LanePolicy(batched=True, rows_max=8, waiting_max=100, inline_s_max=200e-6)
    lane = Lane(SmallEngine(), policy, ModelStats(), Clock(), 100e-6)
    quick, slow = Outcome(), Outcome()
    quick.compute_s = quick.cpu_s = 100e-6
    slow.compute_s = slow.cpu_s = 0.5
    lane._weigh(quick)
    assert lane._quick
    lane._weigh(slow)
    assert not lane._quick
    weighed = 0
    while not lane._quick:
        lane._weigh(quick)
        weighed += 1
    assert 20 < weighed < 100
    await within(lane.close())


async def test_a_batch_that_was_kept_from_its_core_leaves_the_loop_only_if_the_next_works_as_long() -> None:
    policy = LanePolicy(batched=True, rows_max=8, waiting_max=100, inline_s_max=0.1)
    engine = SmallEngine()
    lane = Lane(engine, policy, ModelStats(), Clock(), 100e-6)
    seen: list[Outcome] = []
    weigh = lane._weigh

    def held_up(outcome: Outcome) -> None:
        seen.append(outcome)
        outcome.compute_s = 0.5
        weigh(outcome)

    lane._weigh = held_up  # type: ignore[method-assign]
    assert await answers(lane.submit(ask(1))) == [[2.0]]
    assert lane._quick
    assert await answers(lane.submit(ask(2))) == [[4.0]]
    assert [outcome.cpu_s is None for outcome in seen] == [True, False]
    assert lane._quick
    worked = Outcome()
    worked.compute_s = worked.cpu_s = 1e3
    weigh(worked)
    assert not lane._quick
    await within(lane.close())


async def test_a_quick_model_that_nobody_joins_answers_before_its_caller_waits_at_all() -> None:
    async with bench(inline=True) as b:
        for value in range(8):
            assert await answers(b.lane.submit(ask(value))) == [[2.0 * value]]
        future = b.lane.submit(ask(9))
        assert future.done()
        assert b.lane.waiting == 0
        await within(b.lane.drain())
        for _ in range(40):  # where many come they are held for each other again
            await answers(*(b.lane.submit(ask(value)) for value in range(5)))
        assert len(b.engine.calls[-1]) == 5
