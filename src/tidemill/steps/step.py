"""What a step is: options in `tidemill.toml`, a pure function over named values behind them; used where models run.

Life: `chain.build` makes a step of its table, `bind` makes it ready once (files beside the model are read), and the
function that it gives runs any number of times, from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from tidemill.core.errors import MissingInput, RefusedModel
from tidemill.core.request import RAW
from tidemill.core.tensor import Array

Values: TypeAlias = Mapping[str, Any]
"""Name -> array; a list of arrays where their shapes differ; anything that JSON has where it is meant for people."""
Function: TypeAlias = Callable[[Values], Values]
"""All values so far -> those that are new or changed."""

ANSWER = "predictions"
"""What is answered, as JSON has it. Where no step gives it, what the model gave is."""

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
LABELS_BYTES_MAX = 16 * 2**20


class Bounds(msgspec.Struct, frozen=True):
    """What one request may make of its bytes, in the words of the settings."""

    image_pixels_max: int = 25_000_000
    audio_s_max: int = 600
    text_bytes_max: int = 2**20


class Place(msgspec.Struct, frozen=True):
    """Where a step is made ready: `folder` holds the model, and its labels and tokenizer beside it."""

    folder: Path
    bounds: Bounds = Bounds()

    def file(self, name: str) -> Path:
        """The file `name` beside the model. Raises `RefusedModel` where it is missing, or lies elsewhere."""
        path = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RefusedModel(f"{name!r} lies outside the model's folder {self.folder}; put it beside the model")
        if not path.is_file():
            raise RefusedModel(f"there is no file {name!r} beside the model in {self.folder}")
        return path

    def lines(self, name: str) -> tuple[str, ...]:
        """The lines of a file of labels, without the last empty one. Raises `RefusedModel`."""
        path = self.file(name)
        if path.stat().st_size > LABELS_BYTES_MAX:
            raise RefusedModel(f"{path} has more than {LABELS_BYTES_MAX} bytes, which is no list of labels")
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise RefusedModel(f"{path} is expected to be UTF-8: {error}") from error
        return tuple(text.removesuffix("\n").split("\n"))


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options are fields. A step that reads what was sent says in `accepts` which media types it reads."""

    accepts: ClassVar[tuple[str, ...]] = ()

    def bind(self, place: Place) -> Function:
        """Raises `RefusedModel` for options that cannot be met."""
        return self.apply

    def apply(self, values: Values) -> Values:
        """Pure. Raises `BadMedia` and the other errors of inputs."""
        raise NotImplementedError


def take(values: Values, name: str) -> Array:
    """The array under `name`. Raises `MissingInput`: what a step reads must have been given by one before it."""
    value = given(values, name)
    if not isinstance(value, np.ndarray):
        raise MissingInput(f"{name!r} is no tensor but a {type(value).__name__}")
    return value


def given(values: Values, name: str) -> Any:
    """What is under `name`. Raises `MissingInput`."""
    if name not in values:
        raise MissingInput(f"no step and no model has given {name!r}; there are {', '.join(values) or 'none'}")
    return values[name]


def raw(values: Values) -> bytes:
    """What was sent, the only value when the first step begins."""
    data = given(values, RAW)
    if not isinstance(data, bytes):
        raise MissingInput(f"{RAW!r} is no longer what was sent, but a {type(data).__name__}")
    return data
