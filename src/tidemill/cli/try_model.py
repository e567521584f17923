"""`tidemill try`: one request without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import json_option, setting_options, settled

if TYPE_CHECKING:
    from tidemill.core.contracts import Engine, Generator, Served
    from tidemill.core.package import ModelPackage
    from tidemill.core.request import Predict
    from tidemill.core.settings import Settings
    from tidemill.core.tensor import Signature, Tensors
    from tidemill.deploy.local import Replica

VALUES_SHOWN = 8
SCORE_SHOWN = 0.01
"""A label that is less likely is not worth a line, unless it is the first."""
TENSOR_FILES = (".json", ".npy", ".npz")


@click.command("try")
@click.argument("model")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@setting_options("models", "engine", "threads")
@json_option
def try_command(model: str, file: Path | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Ask a model once, without a server, and print the answer and its timing.

    FILE holds the inputs: a V2 request or {"inputs": {NAME: VALUES}} as .json, arrays as .npz, one array as .npy; or
    what the model's own steps read: a picture, a sound, a table, a text, any file. Without FILE a model of the kit gets
    its sample, any other zeros.
    """
    from tidemill.assemble import choose, fleet_policy
    from tidemill.core.errors import NotOffered, RefusedModel
    from tidemill.deploy.local import Replica
    from tidemill.deploy.words import generates

    settings, _ = settled({**flags, "no_warm_up": True}, config)  # one request is what is asked for
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    if generates(Replica(choice.package, fleet_policy(settings)).engine_name):
        raise NotOffered(f"{choice.name} is a language model: `tidemill serve {model}` answers at /v1/chat/completions")
    if _is_raw(choice.package, file) or choice.package.config.stage:
        spent_ms = _through_steps(settings, choice.package, file, as_json)
    else:
        spent_ms = _alone(settings, choice.package, file, as_json)
    if not as_json:
        click.echo(f"{choice.name} version {choice.version} answered in {spent_ms:.2f} ms")


def _alone(settings: Settings, package: ModelPackage, file: Path | None, as_json: bool) -> float:
    engine, _, _ = opened(settings, package, signatures_max=1)
    assert engine is not None  # noqa: S101 - an ensemble goes the other way
    inputs = _inputs(package.name, package.source, engine.signature, file)
    engine.signature.check(inputs)
    started = time.perf_counter()
    outputs = engine.predict(inputs, ())
    spent_ms = (time.perf_counter() - started) * 1000
    _say({"outputs": dict(outputs)}, spent_ms, as_json)
    engine.close()
    return spent_ms


def _is_raw(package: ModelPackage, file: Path | None) -> bool:
    """Whether the model's steps read `file`: `.json` and arrays are tensors, but for a model that takes any file."""
    steps = package.config.pre
    if file is None or not steps:
        return False
    return file.suffix not in TENSOR_FILES or steps[0].get("step") == "file-ends"


def _through_steps(settings: Settings, package: ModelPackage, file: Path | None, as_json: bool) -> float:
    import orjson

    from tidemill.assemble import once
    from tidemill.core.request import RAW, Predict
    from tidemill.doors import raw
    from tidemill.doors.multipart import type_of

    def work(served: Served) -> Predict:
        if file is None or not _is_raw(package, file):
            inputs = _inputs(package.name, package.source, served.signature, file)
            served.signature.check(inputs)
            return Predict(inputs)
        media = type_of(file.name)
        if media.startswith("text/") and not raw.takes(served.accepts, media) and "text/plain" in served.accepts:
            media = "text/plain"
        if not raw.takes(served.accepts, media):
            raise raw.unsupported(served.name, media, served.accepts)
        return raw.work(file.read_bytes(), media)

    done = once(settings, package, work)
    if _is_raw(package, file):
        _say(orjson.loads(done.tensors[RAW][0]), done.spent_s * 1000, as_json)
    else:
        _say({"outputs": dict(done.tensors)}, done.spent_s * 1000, as_json)
    return done.spent_s * 1000


def opened(settings: Settings, package: ModelPackage, signatures_max: int) -> tuple[Engine | None, Replica, float]:
    """The engine that would serve `package`, None where that is others, its replica as the fleet would see it, and its
    warm-up time. Of further signatures no more is kept than what they are."""
    from tidemill.assemble import fleet_policy
    from tidemill.deploy import embedder, stages
    from tidemill.deploy.local import Replica
    from tidemill.deploy.opening import open_engine
    from tidemill.deploy.steps import prepare
    from tidemill.deploy.words import generates

    policy = fleet_policy(settings)
    replica = Replica(package, policy)
    if generates(replica.engine_name):
        replica.ask_there(asyncio.run(_loaded(replica.engine_name, package, settings)))
        return None, replica, float("inf")
    replica.steps = prepare(package, policy.steps.bounds)
    if replica.engine_name == stages.ENSEMBLE:
        replica.adopt(stages.prepare(package, policy.steps.bounds).signature, rows_apart=False)
        return None, replica, float("inf")
    opened = open_engine(
        replica.engine_name,
        policy.filled(package),
        settings.threads,
        warm_ups=policy.warm_ups,
        seconds_max=policy.load_s_max,
        signatures_max=signatures_max,
    )
    replica.adopt_opened(opened)
    for each in opened.further.values():
        for engine in each.engines:
            engine.close()
    replica.embedder = embedder.prepare(package, opened.engine.signature, policy.steps.bounds)
    return opened.engine, replica, opened.warm_up_s


async def _loaded(engine_name: str, package: ModelPackage, settings: Settings) -> Generator:
    """A language model, closed again: what it is can still be read."""
    from tidemill.deploy.words import open_generator

    made = await open_generator(engine_name, package, settings, settings.load_timeout_s)
    await made.close()
    return made


def _inputs(name: str, source: str, signature: Signature, file: Path | None) -> Tensors:
    from tidemill.core.errors import MalformedRequest, UnknownModel, UnsupportedMedia
    from tidemill.doors.multipart import type_of
    from tidemill.engine.lane import zeros_for

    if file is None:
        from tidemill.kit.install import sample

        try:
            return sample(name) if source or name == "half" else zeros_for(signature)
        except UnknownModel:
            return zeros_for(signature)
    if file.suffix in (".npy", ".npz"):
        return _from_arrays(signature, file)
    try:
        return _from_json(signature, file.read_bytes())
    except MalformedRequest as error:
        if file.suffix in TENSOR_FILES:
            raise
        media = type_of(file.name)
        raise UnsupportedMedia(
            f"{name} has no steps that read {media}, and {file} is not JSON; give its inputs as .json, .npy or .npz"
        ) from error


def _from_arrays(signature: Signature, file: Path) -> Tensors:
    """One array for a model's first input (.npy), or each under its input's name (.npz). Raises `WrongValue`."""
    from zipfile import BadZipFile

    import numpy as np

    from tidemill.core.errors import WrongValue

    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {signature.inputs[0].name: np.asarray(found, order="C")}
        with found:
            return {name: np.asarray(found[name], order="C") for name in found.files}
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise WrongValue(f"{file} holds no arrays that can be read: {reason}; numpy.save makes one") from error


def _from_json(signature: Signature, body: bytes) -> Tensors:
    """A V2 request, or TensorFlow Serving's row or column form."""
    from tidemill.doors.kserve import translate as kserve
    from tidemill.doors.tfserving import translate as tfserving

    if b'"datatype"' in body:
        return kserve.question(signature, body, -1).work.inputs
    return tfserving.question(signature, body).work.inputs


def _say(told: dict[str, Any], spent_ms: float, as_json: bool) -> None:
    """Tensors under `outputs`, or what the model's steps say under `predictions`."""
    if as_json:
        from tidemill.doors.json_values import render

        click.echo(render({**told, "compute_ms": spent_ms}))
    elif "outputs" in told:
        for name, array in told["outputs"].items():
            click.echo(f"{name} {list(array.shape)} {_some(array)}")
    else:
        for line in _lines(told["predictions"]):
            click.echo(line)


def _lines(told: Any) -> Iterator[str]:
    """What steps say, a thing a line."""
    import numpy as np

    if isinstance(told, dict):
        for name, value in told.items():
            yield f"{name} {value if isinstance(value, str) else _some(np.array(value, object))}"
    elif isinstance(told, list) and told and all(isinstance(each, dict) for each in told):
        for place, each in enumerate(told):
            if set(each) == {"label", "score"}:
                if not place or each["score"] >= SCORE_SHOWN:
                    yield f"{each['label']} ({each['score']:.1%})"
            else:
                yield "  ".join(f"{name} {value}" for name, value in each.items())
    elif isinstance(told, list):
        yield f"[{len(told)}] {_some(np.array(told, float))}" if told and isinstance(told[0], float) else str(told)
    else:
        yield str(told)


def _some(array: Any) -> str:
    import numpy as np

    flat = np.array2string(array.ravel()[:VALUES_SHOWN], separator=", ", precision=6)
    return flat + ("" if array.size <= VALUES_SHOWN else f" and {array.size - VALUES_SHOWN} more")
