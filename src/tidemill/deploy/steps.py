"""A model's steps made ready, and the threads they run on; belongs to the owner's loop."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson

from tidemill.core.errors import DeadlineExceeded, EngineFailed, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature
from tidemill.steps.chain import Chain, build
from tidemill.steps.step import ANSWER, Bounds, Place, Values


class StepPolicy(msgspec.Struct, frozen=True):
    """`threads` for the steps of all models. `elements_max`: calls of one model that one request makes. `at_once` of
    these are under way together. `texts_max`: texts that one request has embedded."""

    threads: int = 2
    bounds: Bounds = Bounds()
    elements_max: int = 20_000
    at_once: int = 16
    texts_max: int = 2048


class Steps(msgspec.Struct, frozen=True):
    """A model's own steps, ready to run."""

    pre: Chain = Chain()
    post: Chain = Chain()

    @property
    def accepts(self) -> tuple[str, ...]:
        return self.pre.accepts


def prepare(package: ModelPackage, bounds: Bounds) -> Steps:
    """Blocks: files beside the model are read. Raises `RefusedModel`."""
    config = package.config
    if config.post and not config.pre:
        raise RefusedModel("[[post]] without [[pre]]: steps behind the model serve those who send what steps read")
    place = Place(home(package.path), bounds)
    steps = Steps(build(config.pre, place, "[[pre]]"), build(config.post, place, "[[post]]"))
    if config.pre and not steps.accepts:
        raise RefusedModel("[[pre]] has no step that reads what is sent: image, wav, csv, text or file-ends")
    return steps


def home(path: Path) -> Path:
    """Where a model's files lie: a SavedModel is a folder itself."""
    return path if path.is_dir() else path.parent


class StepThreads:
    """Runs chains off the loop. What waits here is held by a place of the gate, so the line is as long as that allows.

    A chain that runs past its request's deadline keeps its thread until it ends; its bounds see to that.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "steps")

    async def run(self, chain: Chain, values: Values, deadline: float) -> dict[str, Any]:
        """Raises what the chain raises, and `DeadlineExceeded` as soon as it has passed."""
        if not chain.functions:
            return dict(values)
        found: dict[str, Any] = await self.timely(deadline, chain, values)
        return found

    async def answer(self, chain: Chain, values: Values, outputs: tuple[str, ...], deadline: float) -> bytes:
        """The JSON of what `chain` says; where it names no answer, of `outputs`."""
        told: bytes = await self.timely(deadline, _answer, chain, values, outputs)
        return told

    async def timely(self, deadline: float, function: Any, *arguments: Any) -> Any:
        """What `function` gives on one of these threads, or raises; `DeadlineExceeded` as soon as it has passed."""
        left_s = deadline - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed in the steps around the model") from error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _answer(chain: Chain, values: Values, outputs: tuple[str, ...]) -> bytes:
    found = chain(values)
    told = found[ANSWER] if ANSWER in found else {name: found[name] for name in outputs if name in found}
    try:
        return orjson.dumps({ANSWER: _plain(told)}, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise EngineFailed(f"what the steps answer cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Strings of tensors are bytes, and arrays of other kinds than orjson's are lists."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "iub" or value.dtype in (np.float32, np.float64):
            return np.ascontiguousarray(value)
        return _plain(value.tolist()) if value.dtype == object else value.astype(np.float32)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def check_inputs(signature: Signature, values: Values) -> dict[str, Any]:
    """The model's inputs among what the steps gave. Raises the errors of `Signature.check`."""
    inputs = {spec.name: values[spec.name] for spec in signature.inputs if spec.name in values}
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise EngineFailed(f"the steps give {name!r} as a {type(array).__name__}, the model takes a tensor")
    signature.check(inputs)
    return inputs
