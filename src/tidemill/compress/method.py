"""What `--method` names: a way to compress with its options; plain values for the process that reads recipes.

A layer-wise method has a `solver`, which workers call one layer at a time; a method that looks at the whole model has
`run` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.compress.layers import LeftAlone
from tidemill.compress.task import LayerResult, Solver
from tidemill.core.errors import InvalidRecipe


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a method: `type` is bool, int, float or str. `low` and `high` are themselves allowed; `choices`,
    where given, are all that is."""

    type: type
    default: bool | int | float | str
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[int | float | str, ...] = ()

    def read(self, name: str, value: Any) -> Any:
        """`value` (words of a command line included) as this option's type. Raises `InvalidRecipe`."""
        try:
            read = _read(self.type, value)
        except (TypeError, ValueError) as error:
            raise InvalidRecipe(f"option {name!r} is {value!r}, and must be {_kind(self.type)}: {self.help}") from error
        if self.choices and read not in self.choices:
            raise InvalidRecipe(f"option {name!r} is {value!r}, and must be one of {', '.join(map(str, self.choices))}")
        # Written so that NaN fails too.
        if self.low is not None and not read >= self.low:
            raise InvalidRecipe(f"option {name!r} is {value!r}, and must be at least {self.low:g}")
        if self.high is not None and not read <= self.high:
            raise InvalidRecipe(f"option {name!r} is {value!r}, and must be at most {self.high:g}")
        return read


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished model. `graph` is a `graph.Graph`; `layers` holds each layer's result under its name; `name` tells
    the outcomes of one run apart; `notes` are sentences for the report; `left` are layers that stayed as they were."""

    graph: Any
    layers: Mapping[str, LayerResult] = field(default_factory=dict)
    name: str = ""
    notes: tuple[str, ...] = ()
    left: tuple[LeftAlone, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """Exactly one of `solver` and `run` is there. `run` gets the `pipeline.Workbench` and all options' values.

    `rolls_back` says that `run` may be called again for fewer layers, where its model keeps too little of the metric.
    `names`, of a method that gives several models, tells what they may be called with these options.
    """

    name: str
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    solver: Solver | None = None
    run: Callable[[Any, Mapping[str, Any]], list[Outcome]] | None = None
    rolls_back: bool = False
    names: Callable[[Mapping[str, Any]], list[str]] | None = None

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option's value: `given` checked, defaults for the others. Raises `InvalidRecipe`."""
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "none"
            raise InvalidRecipe(f"method {self.name!r} has no option {unknown[0]!r}; its options are {known}")
        return {
            name: option.read(name, given[name]) if name in given else option.default
            for name, option in self.options.items()
        }


def _read(kind: type, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, str) and value.lower() in {"true", "yes", "on", "false", "no", "off"}:
            return value.lower() in {"true", "yes", "on"}
        if isinstance(value, bool):
            return value
        raise ValueError(value)
    if isinstance(value, bool):
        raise TypeError(value)
    if kind is str:
        if not isinstance(value, str):
            raise TypeError(value)
        return value
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return kind(value)


def _kind(kind: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
