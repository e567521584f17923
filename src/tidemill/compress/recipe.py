"""What to do to a model, read from YAML or from flags and checked before any work; runs in the command line's process.

A recipe is plain data: it names a model, data, and steps. `check` turns its steps into `PlannedStep`s, whose methods
and options are known to be there; `chosen` finds a step's layers once the graph has been read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from tidemill.compress import metrics
from tidemill.compress.method import Method
from tidemill.core import registry
from tidemill.core.errors import InvalidRecipe, InvalidSetting

RECIPE_BYTES_MAX = 1_000_000
STEPS_MAX = 64
LAYERS_NAMED = 12
BY_OPERATOR = "op:"

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Patterns = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`match` and `skip` are patterns of the shell's kind on layer names; `op:Conv` is every layer of that operator."""

    method: str
    options: dict[str, Any] = {}
    match: Patterns = ("*",)
    skip: tuple[str, ...] = ()


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the result must come to, as shares of the original: bytes on disk, and time on the better engine."""

    size: Share | None = None
    time: Share | None = None


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How data is read: `rows` are learned from at most, `held_rows` held out at most; `held_share` is held out where
    the data does not say which. Pictures become `(value / 255 - mean) / deviation`."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 1_000
    held_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000
    held_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.3
    batch: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 16
    tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 128
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`metric` "" takes accuracy where the data has labels, else cosine. `keep` is the least share of the metric that
    must be left; with `rollback`, layers that lose most for what they save get their own weights back until it is.
    `model` and `data` may come from the command line instead; `held` is other data, all of which is held out. `shapes`
    are the (rows, length) at which time is measured; length means nothing to a model of fixed size.
    """

    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=STEPS_MAX)]
    model: str = ""
    data: str = ""
    metric: str = ""
    keep: Share | None = None
    rollback: bool = True
    targets: Targets = Targets()
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0
    held: str = ""
    reading: Reading = Reading()
    shapes: tuple[tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]], ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step whose method is loaded and whose options all have values. `place` is where it stands in the recipe."""

    method: Method
    options: Mapping[str, Any]
    match: tuple[str, ...]
    skip: tuple[str, ...]
    place: str


class Named(Protocol):
    """What `chosen` must know of a layer."""

    @property
    def name(self) -> str: ...

    @property
    def op(self) -> str: ...


L = TypeVar("L", bound=Named)


def read(path: Path) -> Recipe:
    """The recipe in the YAML file at `path`. Raises `InvalidRecipe` with the place, the value and what is expected."""
    try:
        if path.stat().st_size > RECIPE_BYTES_MAX:
            raise InvalidRecipe(f"{path} has {path.stat().st_size} bytes; a recipe has {RECIPE_BYTES_MAX} at most")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRecipe(f"the recipe {path} cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str = "recipe") -> Recipe:
    """`text` as a recipe; `name` stands before every message. Raises `InvalidRecipe`."""
    value = _yaml(text, name)
    try:
        return msgspec.convert(value, Recipe)
    except msgspec.ValidationError as error:
        raise InvalidRecipe(f"{name}: {_in_words(str(error), value)}") from error


def of_method(method: str, words: Sequence[str] = (), match: Sequence[str] = (), **others: Any) -> Recipe:
    """A recipe of one step, as `--method METHOD -O NAME=VALUE --match PATTERN` gives it. Raises `InvalidRecipe`."""
    step = Step(method, options_of(words), tuple(match) or ("*",))
    return changed(Recipe(steps=(step,)), **others)


def changed(recipe: Recipe, *, rows: int | None = None, **others: Any) -> Recipe:
    """`recipe` with `others` in place of its own, where they are not None; `rows` is that of `reading`.

    Raises `InvalidRecipe`.
    """
    asked = {name: value for name, value in others.items() if value is not None}
    if rows is not None:
        asked["reading"] = {**msgspec.to_builtins(recipe.reading), "rows": rows}
    given = {**{name: getattr(recipe, name) for name in Recipe.__struct_fields__}, **asked}
    try:
        return msgspec.convert(msgspec.to_builtins(given), Recipe)
    except msgspec.ValidationError as error:
        raise InvalidRecipe(_in_words(str(error), given)) from error


def options_of(words: Iterable[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as options; values stay text, and the method reads them. Raises `InvalidRecipe`."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidRecipe(f"-O {word!r} is no option; write NAME=VALUE, such as bits=4")
        if name in found:
            raise InvalidRecipe(f"-O {name} is given twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


def check(recipe: Recipe) -> list[PlannedStep]:
    """The steps with their methods and all options' values; what a recipe lacks is said here, before any work.

    Raises `InvalidRecipe`, and `MissingPart` for a method whose library is not installed.
    """
    if not recipe.model:
        raise InvalidRecipe("model is missing: name a model of the repository, or a path")
    if not recipe.data:
        raise InvalidRecipe("data is missing: every method learns from rows like those the model will see (--data)")
    if recipe.metric and ":" not in recipe.metric and recipe.metric not in metrics.NAMES:
        near = _nearest(recipe.metric, metrics.NAMES)
        raise InvalidRecipe(
            f"metric is {recipe.metric!r}{near}; known are {', '.join(metrics.NAMES)}, and MODULE:FUNCTION"
        )
    planned = []
    for index, step in enumerate(recipe.steps):
        place = f"steps[{index}]"
        method = load_method(step.method, f"{place}.method")
        for name in step.options:
            if name not in method.options:
                near = _nearest(name, method.options)
                known = ", ".join(method.options) or "none"
                raise InvalidRecipe(
                    f"{place}.options: {method.name} has no option {name!r}{near}; its options are {known}"
                )
        try:
            options = method.settle(step.options)
        except InvalidRecipe as error:
            raise InvalidRecipe(f"{place}.options: {error.message}") from error
        planned.append(PlannedStep(method, options, step.match, step.skip, place))
    several = [step for step in planned[:-1] if step.method.names is not None]
    if several:
        raise InvalidRecipe(
            f"{several[0].place}.method is {several[0].method.name!r}, which gives several models;"
            " it can only be the last step"
        )
    return planned


def load_method(name: str, place: str = "method") -> Method:
    """The method registered as `name`. Raises `InvalidRecipe` with the nearest name, `MissingPart`."""
    known = registry.names("solver")
    if name not in known:
        near = _nearest(name, known)
        raise InvalidRecipe(f"{place} is {name!r}{near}; known are {', '.join(known)}")
    try:
        found = registry.load(f"solver.{name}")
    except InvalidSetting as error:
        raise InvalidRecipe(f"{place}: {error.message}") from error
    if not isinstance(found, Method):
        raise InvalidRecipe(f"{place}: {name!r} is registered, but not as a compress.method.Method: {found!r}")
    return found


def chosen(step: PlannedStep, layers: Sequence[L], why_none: str = "") -> list[L]:
    """The layers that `step` is for, in their order. Raises `InvalidRecipe` when there is none; `why_none` is what it
    says of a model without layers."""
    picked = [layer for layer in layers if _fits(layer, step.match) and not _fits(layer, step.skip)]
    if picked:
        return picked
    if not layers:
        raise InvalidRecipe(
            f"{step.place}: the model has no layer to compress: "
            + (why_none or "no MatMul, Gemm, Conv or embedding with weights")
        )
    names = [layer.name for layer in layers]
    shown = ", ".join(names[:LAYERS_NAMED]) + (
        f" and {len(names) - LAYERS_NAMED} more" if len(names) > LAYERS_NAMED else ""
    )
    asked = ", ".join(map(repr, step.match)) + (f" without {', '.join(map(repr, step.skip))}" if step.skip else "")
    near = _nearest(step.match[0], names)
    raise InvalidRecipe(f"{step.place}.match: no layer is named by {asked}{near}; the layers are {shown}")


def _fits(layer: Named, patterns: Iterable[str]) -> bool:
    for pattern in patterns:
        if pattern.startswith(BY_OPERATOR):
            if fnmatchcase(layer.op, pattern.removeprefix(BY_OPERATOR)):
                return True
        # A name is met as it stands too, because layer names may hold brackets.
        elif layer.name == pattern or fnmatchcase(layer.name, pattern):
            return True
    return False


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _yaml(text: str, name: str) -> Any:
    """Plain YAML: no tags, no aliases, no key twice."""
    import yaml

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise InvalidRecipe(f"{name}: line {self.peek_event().start_mark.line + 1} has an alias; write it out")
            return super().compose_node(parent, index)

    def mapping(loader: Any, node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise InvalidRecipe(f"{name}: line {line}: {key!r} is no word to name a field by")
            if key in found:
                raise InvalidRecipe(f"{name}: line {line} gives {key!r} a second time")
            found[key] = loader.construct_object(value_node, deep=True)
        return found

    Plain.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Plain)  # noqa: S506 - a SafeLoader, made narrower
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidRecipe(f"{name} is no YAML: {' '.join(str(error).split())}") from error


_PLACE = re.compile(r" - at `\$(?P<path>.*)`$")
_PART = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r"unknown field `(?P<field>.*)`")
_FIELDS: dict[str, tuple[str, ...]] = {
    "": Recipe.__struct_fields__,
    "targets": Targets.__struct_fields__,
    "reading": Reading.__struct_fields__,
}


def _in_words(message: str, value: Any) -> str:
    """msgspec's message, with the place first and the value there."""
    place = ""
    if found := _PLACE.search(message):
        place = found["path"].lstrip(".")
        message = message[: found.start()]
        value = _at(value, found["path"])
    if unknown := _UNKNOWN.search(message):
        fields = _FIELDS.get(place, Step.__struct_fields__)
        near = _nearest(unknown["field"], fields)
        return (
            f"{place or 'it'} has a field {unknown['field']!r} that is not known{near}; known are {', '.join(fields)}"
        )
    said = message[0].lower() + message[1:]
    if "missing required field" in message or not place:
        return f"{place + ': ' if place else ''}{said}"
    return f"{place} is {_short(value)}: {said}"


def _at(value: Any, path: str) -> Any:
    for part in _PART.finditer(path):
        try:
            value = value[part["key"] or int(part["index"] or 0)]
        except (LookupError, TypeError):
            return value
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
