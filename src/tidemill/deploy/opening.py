"""Opens the engines of one model: loads, warms up, probes, and decides how many run side by side; on a thread."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tidemill.core import registry
from tidemill.core.contracts import Engine, EngineFactory, Forks, WarmUpRequest, WarmUps
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature
from tidemill.deploy import signatures
from tidemill.deploy.signatures import SIGNATURES_MAX, Further
from tidemill.engine.lane import zeros_for
from tidemill.engine.padding import Padder, padder
from tidemill.engine.probe import keeps_rows_apart, padding_holds

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3
WARM_UP_RUNS_MAX, WARM_UP_S = 20, 0.01
"""A quick model runs so often, or for so long: a single look would tell more of the machine."""
REASON_CHARACTERS = 400
TWICE_BYTES_MAX = 64 * 2**20
"""A model no larger than this is loaded twice without being asked: for all cores, and for each of them."""


class Opened(NamedTuple):
    """An engine, what the quickest warm-up run took of the engine that runs one request after another (infinity where
    zeros are no input for it), whether the rows of a
    batch are answered as they are alone, the engines that run side by side, how lengths are made equal, and how many
    requests that the model brings it was warmed up with.

    `signature` is the engine's, and tells of the `further` ones, which have an engine for each of these."""

    engine: Engine
    warm_up_s: float
    rows_apart: bool
    narrow: tuple[Engine, ...] = ()
    padder: Padder | None = None
    warmed: int = 0
    signature: Signature = Signature((), ())
    further: Mapping[str, Further] = {}

    def close(self) -> None:
        """Give the engines back; for those who do not hand them to a lane."""
        for engine in (self.engine, *self.narrow, *(each for one in self.further.values() for each in one.engines)):
            engine.close()


def no_warm_ups(package: ModelPackage, signature: Signature) -> Sequence[WarmUpRequest]:
    """`WarmUps` of models that bring none."""
    return ()


def open_engine(
    engine_name: str,
    package: ModelPackage,
    threads: int = 0,
    instances: int = 1,
    warm_ups: WarmUps = no_warm_ups,
    seconds_max: float = float("inf"),
    signatures_max: int = SIGNATURES_MAX,
) -> Opened:
    """Load, warm up and probe `package`; its own `threads` and `instances` come before these.

    Raises `RefusedModel`, also for what an engine from outside raises: one bad model stops no others; and for a request
    of `warm_ups` that the model does not answer. After `seconds_max` it is sent none of them any more.
    """
    until = time.monotonic() + seconds_max
    opened = _open(engine_name, package, threads, instances, signatures_max)
    try:
        return opened._replace(warmed=_ask(opened, package, warm_ups, until))
    except RefusedModel:
        opened.close()
        raise


def _open(engine_name: str, package: ModelPackage, threads: int, instances: int, signatures_max: int) -> Opened:
    factory: EngineFactory = registry.load(f"engine.{engine_name}")
    config = package.config
    threads = (threads if config.threads is None else config.threads) or os.cpu_count() or 1
    instances = instances if config.instances is None else config.instances
    engine = _load(factory, engine_name, package, threads)
    quickest = _warm_up(engine, package)
    guessed = engine.signature.batched and config.batching.batched is None
    apart = not guessed or keeps_rows_apart(engine)
    if not apart:
        log.warning("the rows of a batch are not kept apart: requests run singly", extra={"model": package.name})
    padding = _padder(engine, package) if apart else None
    count = side_by_side(instances, threads, package.size_bytes)
    narrow: tuple[Engine, ...] = ()
    if count > 1 and isinstance(engine, Forks):
        first = _load(factory, engine_name, package, max(threads // count, 1))
        quickest = _warm_up(first, package)
        narrow = (first, *((first.fork() for _ in range(count - 1)) if isinstance(first, Forks) else ()))
    signature, further = signatures.opened((engine, *narrow), package, signatures_max)
    return Opened(engine, quickest, apart, narrow, padding, signature=signature, further=further)


def _padder(engine: Engine, package: ModelPackage) -> Padder | None:
    """None where nothing is to be padded, or the model shows that it was."""
    wish = package.config.batching.padding
    if wish is None:
        return None
    made = padder(engine.signature, wish)
    if padding_holds(engine, made):
        return made
    log.warning("a padded row is answered otherwise: only equal lengths run together", extra={"model": package.name})
    return None


def side_by_side(instances: int, threads: int, size_bytes: int) -> int:
    """How many batches of a model run at once; 1 where the model is not worth a second place in memory."""
    if instances:
        return instances
    return threads if size_bytes <= TWICE_BYTES_MAX else 1


def _load(factory: EngineFactory, engine_name: str, package: ModelPackage, threads: int) -> Engine:
    try:
        return factory(package, threads)
    except TidemillError:
        raise
    except Exception as error:
        log.exception("the engine %s failed to load %s", engine_name, package.name)
        raise RefusedModel(f"the engine {engine_name!r} failed to load it: {type(error).__name__}: {error}") from error


def _warm_up(engine: Engine, package: ModelPackage) -> float:
    quickest = float("inf")
    try:
        inputs = zeros_for(engine.signature)
        began = time.perf_counter()
        for number in range(WARM_UP_RUNS_MAX):
            started = time.perf_counter()
            if number >= WARM_UP_RUNS and started - began > WARM_UP_S:
                break
            engine.predict(inputs, ())
            quickest = min(quickest, time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 - zeros, or so many of them, may be no input for it; requests will tell
        log.info(
            "it cannot be warmed up with zeros, so its first answers may be slow: %s",
            str(error).partition("\n")[0][:REASON_CHARACTERS],
            extra={"model": package.name},
        )
    return quickest


def _ask(opened: Opened, package: ModelPackage, warm_ups: WarmUps, until: float) -> int:
    """Send what the model brings to each of the engines that are loaded; forks share what one of those has. How many
    requests were answered. Raises `RefusedModel` for one that cannot be read, or that must be answered and is not."""
    started = time.perf_counter()
    places = len((opened.engine, *opened.narrow[:1]))
    own = (opened.engine, *opened.narrow)
    answered = 0
    for request in warm_ups(package, opened.signature):
        named = request.work.signature
        engines = (opened.further[named].engines if named else own)[:places]
        reason = next(filter(None, (_answers(engine, request, until) for engine in engines)), "")
        if not reason:
            answered += 1
        elif request.must:
            raise RefusedModel(f"{request.where}: {reason}")
        else:
            log.warning("%s: %s", request.where, reason, extra={"model": package.name})
    if answered:
        seconds = time.perf_counter() - started
        log.info("%d warm-up requests answered in %.2f s", answered, seconds, extra={"model": package.name})
    return answered


def _answers(engine: Engine, request: WarmUpRequest, until: float) -> str:
    """Why it does not; "" where it does."""
    for _ in range(request.times):
        if time.monotonic() > until:
            return "the time for loading the model is over"
        try:
            engine.predict(request.work.inputs, request.work.outputs)
        except TidemillError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - an engine from outside may say it in any way
            return f"{type(error).__name__}: {error}".partition("\n")[0][:REASON_CHARACTERS]
    return ""
