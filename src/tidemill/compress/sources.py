"""Opens what rows come from (arrays, tables, pictures, texts, a Python iterator) and holds it against the signature.

Runs in the command line's process. Only the rows that are chosen are decoded, tokenised and looked through for NaN.
"""

from __future__ import annotations

import csv
import itertools
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tidemill.compress import user_code
from tidemill.compress.data import Limits, Row, Rows, shapes
from tidemill.core.errors import BadData
from tidemill.core.tensor import DATATYPES, Array, Signature, TensorSpec
from tidemill.core.text import short

LABELS: Final = "labels"
LABEL_COLUMNS: Final = ("label", "labels")
HELD: Final = "held"
EXAMPLE_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sources must fit, and how they are read."""

    signature: Signature
    tokenizer: Path | None = None
    limits: Limits = field(default_factory=Limits)
    classes: tuple[str, ...] = ()

    @property
    def batched(self) -> bool:
        """Whether dimension 0 of every input counts rows: free everywhere, or the same number everywhere."""
        first = {spec.shape[0] if spec.shape else None for spec in self.signature.inputs if spec.shape is not None}
        return len(first) <= 1 and None not in first

    @property
    def batch(self) -> int:
        """Rows of a batch; 0 where a row is a call."""
        if not self.batched:
            return 0
        fixed = self.fixed
        return fixed or self.limits.batch

    @property
    def fixed(self) -> int:
        """The batch that the model insists on; 0: any."""
        shapes = [spec.shape for spec in self.signature.inputs if spec.shape]
        return max(shapes[0][0], 0) if self.batched and shapes else 0

    def row_spec(self, spec: TensorSpec) -> TensorSpec:
        """What one row of an input looks like."""
        if spec.shape is None or not self.batched:
            return spec
        return TensorSpec(spec.name, spec.datatype, spec.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """`read` gives rows by their places; `example` a row in words. `held` marks the rows to keep apart."""

    count: int
    kind: str
    read: Callable[[Sequence[int]], list[Row]]
    example: Callable[[int], str]
    reading: Reading
    labels: Array | None = None
    held: Array | None = None
    pads: Mapping[str, int] = field(default_factory=dict)
    present: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, array in (("labels", self.labels), ("held", self.held)):
            if array is not None and (not array.ndim or len(array) != self.count):
                raise BadData(f"`{name}` has shape {list(array.shape)}, and there are {self.count} rows")
        if self.labels is not None:
            _whole(self.labels, "labels")

    def rows(self, places: Array) -> Rows:
        """In an order in which batches are alike, without those that make no full batch where one is asked for."""
        read = self.read([int(place) for place in places])
        order = sorted(range(len(read)), key=lambda index: shapes(read[index]))
        if self.reading.fixed:
            order = self._full(order, read)
        chosen = places[order]
        return Rows(
            rows=[read[index] for index in order],
            batch=self.reading.batch,
            pads=self.pads,
            labels=self._labels(chosen),
            examples=tuple(self.example(int(place)) for place in chosen),
            present=self.present,
        )

    def _full(self, order: Sequence[int], read: Sequence[Row]) -> list[int]:
        kept = []
        for _, group in itertools.groupby(order, key=lambda index: () if self.pads else shapes(read[index])):
            alike = list(group)
            kept += alike[: len(alike) - len(alike) % self.reading.fixed]
        return kept

    def _labels(self, chosen: Array) -> Array | None:
        if self.labels is None:
            return None
        pairs = self.labels.ndim == 2 and self.labels.shape == (self.count, self.count)
        return self.labels[np.ix_(chosen, chosen)] if pairs else self.labels[chosen]


def open_source(source: str | Path | Iterable[Any], reading: Reading) -> Source:
    """Raises `BadData`, `MissingPart`."""
    if not isinstance(source, str | Path):
        return _iterated(source, type(source).__name__, reading)
    path = Path(source)
    if path.is_dir():
        return _folder(path, reading)
    if not path.is_file():
        module, colon, function = str(source).partition(":")
        if colon and not path.suffix and module.replace(".", "").isidentifier() and function.isidentifier():
            return _iterated(_called(module, function), str(source), reading)
        raise BadData(f"there is no {source}; give a file .npz, .npy, .csv or .txt, a folder, or module:function")
    if path.stat().st_size > reading.limits.bytes_max:
        raise BadData(f"{path} has {path.stat().st_size} bytes, more than {reading.limits.bytes_max}; give fewer rows")
    readers = {".npz": _npz, ".npy": _npz, ".csv": _csv, ".txt": _txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadData(f"{path} is not understood; known are {', '.join(readers)}, folders, and module:function")
    return reader(path, reading)


# -- arrays ------------------------------------------------------------------------------------------------------------


def _npz(path: Path, reading: Reading) -> Source:
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                size_bytes = sum(info.file_size for info in archive.infolist())
            if size_bytes > reading.limits.bytes_max:
                raise BadData(f"{path} unpacks to {size_bytes} bytes, more than {reading.limits.bytes_max}")
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                found = {reading.signature.inputs[0].name: loaded}
            else:
                with loaded:
                    found = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise BadData(f"{path} holds no arrays that can be read: {reason}; numpy.savez makes some") from error
    return _arrays(found, str(path), reading)


def _arrays(found: dict[str, Array], told: str, reading: Reading) -> Source:
    labels, held = found.pop(LABELS, None), found.pop(HELD, None)
    inputs = reading.signature.inputs
    if len(inputs) == 1 and len(found) == 1:
        found = {inputs[0].name: next(iter(found.values()))}
    values = {}
    for spec in inputs:
        if spec.name not in found:
            raise BadData(
                f"{told} has no array {spec.name!r}; it has {', '.join(found) or 'none'}: the model takes {spec}"
            )
        array = found[spec.name]
        values[spec.name] = cast(array, spec, told)
        wanted = reading.row_spec(spec)
        if not array.ndim or not wanted.admits(array.shape[1:]):
            expected = "any shape" if wanted.shape is None else ", ".join(map(str, wanted.shape))
            raise BadData(
                f"{spec.name!r} of {told} has shape {list(array.shape)}, expected [rows, {expected}] (-1: any size)"
            )
    counts = {name: len(array) for name, array in values.items()}
    if len(set(counts.values())) > 1:
        raise BadData(f"the arrays of {told} differ in their rows: {counts}")
    if held is not None and held.dtype != np.bool_:
        raise BadData(f"`{HELD}` of {told} has datatype {held.dtype}, expected bool: true for rows to keep apart")

    def read(places: Sequence[int]) -> list[Row]:
        for name, array in values.items():
            finite(array, places, f"{name!r} of {told}")
        return [{name: array[place] for name, array in values.items()} for place in places]

    count = next(iter(counts.values()), 0)
    if not count:
        raise BadData(f"{told} has no rows")
    return Source(count, "arrays", read, lambda place: f"row {place}", reading, labels, held)


def cast(array: Array, spec: TensorSpec, told: str) -> Array:
    """`array` in the datatype of `spec`, where that loses no kind of value. Raises `BadData`."""
    if array.dtype == spec.dtype:
        return array
    if spec.dtype == object and array.dtype.kind in "SU":
        return np.array([str(value).encode() for value in array.ravel()], object).reshape(array.shape)
    if spec.dtype == object or array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        got = DATATYPES.get(array.dtype, str(array.dtype))
        raise BadData(f"{spec.name!r} of {told} has datatype {got}, expected {spec.datatype}")
    with np.errstate(over="ignore"):
        fitted = array.astype(spec.dtype)
    if array.dtype.kind in "iu" and fitted.dtype.kind in "iu" and not np.array_equal(fitted, array):
        raise BadData(
            f"{spec.name!r} of {told} holds values from {array.min()} to {array.max()}: too large for {spec.datatype}"
        )
    return fitted


def finite(array: Array, places: Sequence[int], told: str) -> None:
    """Raises `BadData` where one of the rows at `places` holds NaN or infinity."""
    if array.dtype.kind != "f":
        return
    for place in places:
        if not np.isfinite(array[place]).all():
            flat = np.ravel(array[place])
            raise BadData(f"row {place} of {told} holds {flat[~np.isfinite(flat)][0]}; every value must be finite")


def _whole(labels: Array, told: str) -> None:
    if labels.dtype.kind not in "biufSU":
        raise BadData(f"{told} have datatype {labels.dtype}, expected numbers")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise BadData(f"{told} hold NaN or infinity; every value must be finite")


# -- tables ------------------------------------------------------------------------------------------------------------


def _csv(path: Path, reading: Reading) -> Source:
    """A column `text` is text. Else every column but `label` is a number of the one input, or an input of its own."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path} is no CSV in UTF-8: {error}") from error
    if not lines:
        raise BadData(f"{path} has no rows")
    names, rows = (lines[0], lines[1:]) if not all(_is_number(cell) for cell in lines[0]) else (None, lines)
    if not rows:
        raise BadData(f"{path} has no rows below its names")
    first = 2 if names else 1
    width = len(lines[0])
    for index, line in enumerate(rows):
        if len(line) != width:
            raise BadData(f"line {index + first} of {path} has {len(line)} columns, expected {width}")
    if names and "text" in names:
        column = names.index("text")
        labels = _label_column(names, rows, path, first)
        return _texts([line[column] for line in rows], str(path), reading, labels)
    return _numbers(path, names, rows, first, reading)


def _numbers(path: Path, names: list[str] | None, rows: list[list[str]], first: int, reading: Reading) -> Source:
    labels = _label_column(names, rows, path, first) if names else None
    columns = [index for index in range(len(rows[0]) if rows else 0) if not names or names[index] not in LABEL_COLUMNS]
    inputs = reading.signature.inputs
    if names and len(inputs) > 1:
        found = {
            spec.name: np.array(_cells(rows, [_column(names, spec, path)], path, first), np.float64).reshape(
                len(rows), *(1 for _ in (reading.row_spec(spec).shape or ()))
            )
            for spec in inputs
        }
    else:
        if len(inputs) > 1:
            raise BadData(f"{path} must name its columns: the model takes {', '.join(map(str, inputs))}")
        spec = reading.row_spec(inputs[0])
        shape = spec.shape or (-1,)
        wanted = math.prod(shape) if -1 not in shape else None
        values = np.array(_cells(rows, columns, path, first), np.float64).reshape(len(rows), len(columns))
        if not names and wanted is not None and len(columns) == wanted + 1:
            values, labels = values[:, :-1], _classes(values[:, -1])
        if wanted is not None and values.shape[1] != wanted:
            raise BadData(f"{path} has {values.shape[1]} columns of numbers, expected {wanted} for {spec}")
        found = {spec.name: values.reshape(len(rows), *shape) if wanted is not None else values}
    for spec in inputs:
        if spec.dtype.kind in "iu" and np.array_equal(found[spec.name], np.round(found[spec.name])):
            found[spec.name] = found[spec.name].astype(spec.dtype)
    if labels is not None:
        found[LABELS] = labels
    return _arrays(found, str(path), reading)


def _cells(rows: list[list[str]], columns: list[int], path: Path, first: int) -> list[list[float]]:
    try:
        return [[float(line[column]) for column in columns] for line in rows]
    except ValueError:
        for index, line in enumerate(rows):
            for column in columns:
                if not _is_number(line[column]):
                    raise BadData(
                        f"line {index + first}, column {column + 1} of {path} holds {short(line[column])},"
                        " expected a number"
                    ) from None
        raise


def _column(names: list[str], spec: TensorSpec, path: Path) -> int:
    if spec.name not in names:
        raise BadData(f"{path} has no column {spec.name!r}; it has {', '.join(names)}: the model takes {spec}")
    return names.index(spec.name)


def _label_column(names: list[str], rows: list[list[str]], path: Path, first: int) -> Array | None:
    column = next((index for index, name in enumerate(names) if name in LABEL_COLUMNS), None)
    return None if column is None else _classes(np.ravel(_cells(rows, [column], path, first)))


def _classes(values: Array) -> Array:
    return values.astype(np.int64) if np.array_equal(values, np.round(values)) else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# -- folders -----------------------------------------------------------------------------------------------------------


def _folder(path: Path, reading: Reading) -> Source:
    from tidemill.compress import pictures

    files = sorted(file for file in path.rglob("*") if file.is_file() and len(file.relative_to(path).parts) <= 2)
    shown = [file for file in files if file.suffix.lower() in pictures.SUFFIXES]
    written = [file for file in files if file.suffix.lower() == ".txt"]
    if bool(shown) == bool(written):
        what = "both pictures and texts" if shown else "neither pictures nor texts"
        raise BadData(f"{path} holds {what}; give a folder of one of them, each class in a folder of its own or none")
    chosen = shown or written
    labels = _folder_labels(path, chosen, reading.classes)
    if written:
        return _texts([_text(file) for file in chosen], str(path), reading, labels)
    spec = pictures.check(reading)

    def read(places: Sequence[int]) -> list[Row]:
        return [{spec.name: pictures.read(chosen[place], spec, reading.limits)} for place in places]

    return Source(len(chosen), "pictures", read, lambda place: chosen[place].name, reading, labels)


def _folder_labels(path: Path, files: Sequence[Path], classes: tuple[str, ...]) -> Array | None:
    """Each file's class by its folder's name: its place among `classes`, a number, or its place in the alphabet."""
    names = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    known = sorted(set(names))
    if known == [""]:
        return None
    if "" in known:
        raise BadData(f"{path} holds files both beside and inside folders of classes, such as {known[1]!r}")
    if classes:
        if strange := [name for name in known if name not in classes]:
            raise BadData(
                f"{path} has a class {strange[0]!r} that the model does not; it has {', '.join(classes[:20])}"
            )
        return np.array([classes.index(name) for name in names], np.int64)
    if all(name.isdecimal() for name in known):
        return np.array([int(name) for name in names], np.int64)
    return np.array([known.index(name) for name in names], np.int64)


# -- texts -------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); convert it first") from error


def _txt(path: Path, reading: Reading) -> Source:
    """A line is a row. Labels, where there are some, lie beside it in NAME.labels.npy."""
    texts = [line.strip() for line in _text(path).splitlines() if line.strip()]
    beside = path.with_name(f"{path.stem}.labels.npy")
    try:
        labels = np.load(beside, allow_pickle=False) if beside.is_file() else None
    except (ValueError, OSError, EOFError) as error:
        raise BadData(f"{beside} holds no labels that can be read: {error}") from error
    return _texts(texts, str(path), reading, labels)


def _texts(texts: Sequence[str], told: str, reading: Reading, labels: Array | None) -> Source:
    from tidemill.compress import tokens

    if not texts:
        raise BadData(f"{told} has no rows: not a line with text")
    plan = tokens.plan(reading, told)
    return Source(
        count=len(texts),
        kind="text",
        read=lambda places: plan.rows([texts[place] for place in places]),
        example=lambda place: texts[place][:EXAMPLE_CHARS],
        reading=reading,
        labels=labels,
        pads=plan.pads,
        present=plan.present,
    )


# -- iterators ---------------------------------------------------------------------------------------------------------


def _called(module: str, function: str) -> Iterable[Any]:
    try:
        found = user_code.found(module, function)()
    except Exception as error:  # the user's own code may raise anything
        raise BadData(f"{module}:{function} gives no rows: {type(error).__name__}: {error}") from error
    if not isinstance(found, Iterable):
        raise BadData(f"{module}:{function} returns {type(found).__name__}, expected something to iterate over")
    return found


def _iterated(source: Iterable[Any], told: str, reading: Reading) -> Source:
    """Feeds {input: array}, or (feeds, labels): any number of rows each, or one call where the model has no batches."""
    wanted = reading.limits.rows_wanted
    rows: list[Row] = []
    labels: list[Any] = []
    size_bytes = 0
    for index, item in enumerate(_guarded(source, told)):
        feeds, given = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        found = _feeds(feeds, f"item {index} of {told}", reading)
        rows += found
        size_bytes += sum(array.nbytes for row in found for array in row.values())
        if size_bytes > reading.limits.bytes_max:
            raise BadData(f"{told} gives more than {reading.limits.bytes_max} bytes; ask for fewer rows")
        if given is not None:
            labels += list(np.atleast_1d(np.asarray(given)))
        if len(rows) >= wanted:
            break
    if not rows:
        raise BadData(f"{told} has no rows")
    if labels and len(labels) != len(rows):
        raise BadData(f"{told} gives {len(labels)} labels for {len(rows)} rows")
    rows, labels = rows[:wanted], labels[:wanted]

    return Source(
        len(rows),
        "arrays",
        lambda places: [rows[place] for place in places],
        lambda place: f"row {place}",
        reading,
        np.array(labels) if labels else None,
    )


def _guarded(source: Iterable[Any], told: str) -> Iterator[Any]:
    try:
        yield from source
    except Exception as error:  # the user's own code may raise anything
        raise BadData(f"{told} broke off: {type(error).__name__}: {error}") from error


def _feeds(feeds: Any, told: str, reading: Reading) -> list[Row]:
    if not isinstance(feeds, Mapping):
        inputs = reading.signature.inputs
        if len(inputs) != 1 or not isinstance(feeds, np.ndarray):
            raise BadData(f"{told} is {type(feeds).__name__}, expected a mapping of {', '.join(map(str, inputs))}")
        feeds = {inputs[0].name: feeds}
    if reading.batched:
        found = {name: np.asarray(array) for name, array in feeds.items()}
    else:
        found = {name: np.asarray(array)[np.newaxis] for name, array in feeds.items()}
    opened = _arrays(found, told, reading)
    return [{name: np.asarray(value) for name, value in row.items()} for row in opened.read(range(opened.count))]
