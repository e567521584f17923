"""Names to lazy import paths: how a part is found without being imported; used in every process.

Built-ins register as third parties do: an entry point `name = "module:attribute"` in the group `tidemill.engines`,
is known here as `engine.name`, one of `tidemill.generators` (engines of language models) as `generator.name`, one of
`tidemill.solvers` as `solver.name`, one of `tidemill.steps` as `step.name`. Entry points win over built-ins.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any

from tidemill.core.errors import InvalidSetting, MissingPart

BUILT_IN = {
    "trace.otlp": "tidemill.observe.otlp:set_up",
    "grpc.native": "tidemill.doors.grpc_native:ENGINE",
    "engine.onnx": "tidemill.engine.onnx:load",
    "engine.openvino": "tidemill.engine.openvino:load",
    "engine.tensorflow": "tidemill.engine.tensorflow:load",
    "engine.echo": "tidemill.engine.echo:load",
    "generator.generate": "tidemill.engine.generate:load",
    "generator.remote": "tidemill.engine.remote:load",
    "generator.vllm": "tidemill.engine.on_vllm:load",
    "solver.int8": "tidemill.compress.quantise.int8:METHOD",
    "solver.gptq": "tidemill.compress.quantise.gptq:METHOD",
    "solver.adaquant": "tidemill.compress.quantise.adaquant:METHOD",
    "solver.kmeans": "tidemill.compress.quantise.kmeans:METHOD",
    "solver.two-bit": "tidemill.compress.quantise.two_bit:METHOD",
    "solver.binary": "tidemill.compress.quantise.binary:METHOD",
    "solver.laplace": "tidemill.compress.prune.laplace:METHOD",
    "solver.zero-one": "tidemill.compress.prune.zero_one:METHOD",
    "solver.unify": "tidemill.compress.prune.unify:METHOD",
    "step.image": "tidemill.steps.image:Image",
    "step.resize": "tidemill.steps.image:Resize",
    "step.normalise": "tidemill.steps.image:Normalise",
    "step.text": "tidemill.steps.text:Text",
    "step.tokenise": "tidemill.steps.text:Tokenise",
    "step.file-ends": "tidemill.steps.file_ends:FileEnds",
    "step.wav": "tidemill.steps.audio:Wav",
    "step.resample": "tidemill.steps.audio:Resample",
    "step.window": "tidemill.steps.audio:Window",
    "step.csv": "tidemill.steps.table:Csv",
    "step.cast": "tidemill.steps.table:Cast",
    "step.constant": "tidemill.steps.table:Constant",
    "step.softmax": "tidemill.steps.scores:Softmax",
    "step.sigmoid": "tidemill.steps.scores:Sigmoid",
    "step.top": "tidemill.steps.scores:Top",
    "step.threshold": "tidemill.steps.scores:Threshold",
    "step.show": "tidemill.steps.scores:Show",
    "step.pool": "tidemill.steps.vectors:Pool",
    "step.unit": "tidemill.steps.vectors:Unit",
    "step.scale": "tidemill.steps.vectors:Scale",
    "step.notes": "tidemill.steps.notes:Notes",
    "step.segments": "tidemill.steps.speech:Segments",
    "step.boxes": "tidemill.steps.reading:Boxes",
    "step.crops": "tidemill.steps.reading:Crops",
    "step.turn": "tidemill.steps.reading:Turn",
    "step.ctc": "tidemill.steps.reading:Ctc",
    "step.lines": "tidemill.steps.reading:Lines",
    "step.forecast": "tidemill.steps.forecast:Forecast",
}
EXTRA = {
    "trace.otlp": "otel",
    "grpc.native": "grpc-native",
    "engine.openvino": "openvino",
    "engine.tensorflow": "tensorflow",
    "generator.generate": "llm",
    "generator.vllm": "vllm",
    **{name: "compress" for name in BUILT_IN if name.startswith("solver.")},
    **{name: "data" for name in BUILT_IN if name.startswith("step.")},
}
GROUPS = {
    "tidemill.engines": "engine",
    "tidemill.generators": "generator",
    "tidemill.solvers": "solver",
    "tidemill.steps": "step",
}


@cache
def known() -> dict[str, str]:
    """Every registered name with its import path."""
    found = dict(BUILT_IN)
    for group, kind in GROUPS.items():
        for entry in entry_points(group=group):
            found[f"{kind}.{entry.name}"] = entry.value.partition("[")[0].replace(" ", "")  # without extras
    return found


def names(kind: str) -> list[str]:
    """The registered names of one kind, without the kind."""
    return sorted(name.partition(".")[2] for name in known() if name.startswith(kind + "."))


def load(name: str) -> Any:
    """Import what `name` stands for.

    Raises `InvalidSetting` for an unknown name and for one that stands for nothing, `MissingPart` when a library it
    needs is not installed, or broken.
    """
    path = known().get(name)
    if path is None:
        kind = name.partition(".")[0]
        raise InvalidSetting(f"there is no {name!r}; known are {', '.join(names(kind)) or 'none'}")
    module, _, attribute = path.partition(":")
    try:
        return attrgetter(attribute)(import_module(module))
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("tidemill."):
            raise
        part = f"tidemill[{EXTRA.get(name, 'all')}]" if path == BUILT_IN.get(name) else missing.name
        raise MissingPart(f"{name} needs {missing.name}: pip install '{part}'") from missing
    except ImportError as broken:
        raise MissingPart(f"{name} cannot be loaded: {broken}; install again what it needs") from broken
    except AttributeError as error:
        raise InvalidSetting(f"{name} is registered as {path!r}, and there is no such thing: {error}") from error
