"""From the tables of `tidemill.toml` to a row of functions, every name and option checked; used where models run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from tidemill.core import registry
from tidemill.core.errors import EngineFailed, InvalidSetting, RefusedModel, TidemillError
from tidemill.core.text import short
from tidemill.steps.step import Function, Place, Step, Values


class Chain(msgspec.Struct, frozen=True):
    """Steps made ready, in their order. `accepts` are the media types that the first one reads."""

    functions: tuple[tuple[str, Function], ...] = ()
    accepts: tuple[str, ...] = ()

    def __call__(self, values: Values) -> dict[str, Any]:
        """All values, those of the steps included. Blocks. Raises what a step raises for bad inputs, `EngineFailed`
        where one broke."""
        found = dict(values)
        for name, function in self.functions:
            try:
                found.update(function(found))
            except TidemillError:
                raise
            except MemoryError as error:
                raise EngineFailed(f"the step {name!r} ran out of memory; send less at once") from error
            except Exception as error:  # a step from outside may raise anything; its words may quote what was sent
                raise EngineFailed(f"the step {name!r} failed with {type(error).__name__}") from error
        return found


def build(tables: Iterable[Mapping[str, Any]], place: Place, where: str = "step") -> Chain:
    """`where` is what the tables are called in messages. Raises `RefusedModel` with the place and near matches."""
    functions = []
    accepts: tuple[str, ...] = ()
    for number, table in enumerate(tables, 1):
        at = f"{where} {number}"
        step = read(table, at)
        accepts = accepts or type(step).accepts
        try:
            functions.append((str(table["step"]), step.bind(place)))
        except TidemillError as error:
            raise RefusedModel(f"{at} ({table['step']}): {error.message}") from error
        except ImportError as error:
            raise RefusedModel(f"{at} ({table['step']}) needs {error.name}: pip install 'tidemill[data]'") from error
    return Chain(tuple(functions), accepts)


def read(table: Mapping[str, Any], at: str = "step") -> Step:
    """One table as a step, unbound. Raises `RefusedModel`."""
    name = table.get("step")
    if not isinstance(name, str):
        raise RefusedModel(f"{at}: `step` is expected to name a step; known are {', '.join(registry.names('step'))}")
    known = registry.names("step")
    if name not in known:
        raise RefusedModel(f"{at}: there is no step {short(name)}{_near(name, known)}; known are {', '.join(known)}")
    try:
        kind: type[Step] = registry.load(f"step.{name}")
    except InvalidSetting as error:
        raise RefusedModel(f"{at}: {error.message}") from error
    options = {key: value for key, value in table.items() if key != "step"}
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in options:
        if key not in fields:
            raise RefusedModel(
                f"{at}: the step {name!r} has no option {short(key)}{_near(key, fields)}; it has {', '.join(fields)}"
            )
    try:
        return msgspec.convert(options, kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise RefusedModel(f"{at} ({name}): {error}") from error


def _near(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""
