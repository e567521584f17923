"""`tidemill try`: one request without a server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import json_option, setting_options, settled

if TYPE_CHECKING:
    from tidemill.core.contracts import Engine
    from tidemill.core.package import ModelPackage
    from tidemill.core.settings import Settings
    from tidemill.core.tensor import Signature, Tensors
    from tidemill.deploy.local import Replica

VALUES_SHOWN = 8


@click.command("try")
@click.argument("model")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@setting_options("models", "engine", "threads")
@json_option
def try_command(model: str, file: Path | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Ask a model once, without a server, and print the answer and its timing.

    FILE holds the inputs: a V2 request or {"inputs": {NAME: VALUES}} as .json, arrays as .npz, one array as .npy; for
    magika it is the file to recognise. Without FILE a model of the kit gets its sample, any other zeros.
    """
    from tidemill.assemble import choose
    from tidemill.core.errors import RefusedModel

    settings, _ = settled(flags, config)
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    engine, _, _ = opened(settings, choice.package)
    inputs = _inputs(choice.package, engine, file)
    engine.signature.check(inputs)
    started = time.perf_counter()
    outputs = engine.predict(inputs, ())
    spent_ms = (time.perf_counter() - started) * 1000
    if as_json:
        from tidemill.doors.json_values import render

        click.echo(render({"outputs": dict(outputs), "compute_ms": spent_ms}))
    else:
        _print(choice.package, outputs)
        click.echo(f"{choice.name} version {choice.version} answered in {spent_ms:.2f} ms")
    engine.close()


def opened(settings: Settings, package: ModelPackage) -> tuple[Engine, Replica, float]:
    """The engine that would serve `package`, its replica as the fleet would see it, and its warm-up time."""
    from tidemill.assemble import fleet_policy
    from tidemill.deploy.local import Replica
    from tidemill.deploy.opening import open_engine

    replica = Replica(package, fleet_policy(settings))
    opened = open_engine(replica.engine_name, package, settings.threads)
    replica.adopt(opened.engine.signature, opened.rows_apart)
    return opened.engine, replica, opened.warm_up_s


def _inputs(package: ModelPackage, engine: Engine, file: Path | None) -> Tensors:
    import numpy as np

    from tidemill.core.errors import UnknownModel
    from tidemill.engine.lane import zeros_for

    if file is None:
        from tidemill.kit.install import sample

        try:
            return sample(package.name) if package.source or package.name == "half" else zeros_for(engine)
        except UnknownModel:
            return zeros_for(engine)
    if package.source.startswith("magika"):
        from tidemill.kit.magika_features import file_features

        return {"bytes": file_features(file)[np.newaxis]}
    if file.suffix in (".npy", ".npz"):
        return _from_arrays(engine.signature, file)
    return _from_json(engine.signature, file.read_bytes())


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


def _print(package: ModelPackage, outputs: Tensors) -> None:
    import numpy as np

    if package.source.startswith("magika"):
        from tidemill.kit.magika_features import answer, labels

        label, probability = answer(outputs["target_label"][0], labels(package.path.parent))
        click.echo(f"{label} ({probability:.1%})")
        return
    for name, array in outputs.items():
        flat = np.array2string(array.ravel()[:VALUES_SHOWN], separator=", ", precision=6)
        more = "" if array.size <= VALUES_SHOWN else f" and {array.size - VALUES_SHOWN} more"
        click.echo(f"{name} {list(array.shape)} {flat}{more}")
