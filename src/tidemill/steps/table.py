"""Steps on tables and plain values: CSV to columns, constants; pure, on the steps' threads."""

from __future__ import annotations

import csv
import io
import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia, RefusedModel
from tidemill.core.tensor import DTYPES, Array
from tidemill.core.text import short
from tidemill.steps import text
from tidemill.steps.step import Function, Name, Place, Step, Values, given, raw

MISSING = frozenset({"", "na", "nan", "null", "none", "."})
COLUMNS_MAX = 1024
FIELD_CHARACTERS_MAX = 1000
csv_error = csv.Error


class Csv(Step, frozen=True, kw_only=True):
    """Reads CSV with a line of names: each of `columns` becomes FP64 [rows] under its name, `index` a list of texts."""

    accepts: ClassVar[tuple[str, ...]] = ("text/csv",)
    columns: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=COLUMNS_MAX, description="columns of numbers")]
    index: Annotated[str, Meta(description='the column that tells when; "" none')] = ""
    missing: Annotated[
        Literal["refuse", "interpolate"],
        Meta(description="an empty field: an error, or what lies between its neighbours"),
    ] = "refuse"
    separator: Annotated[str, Meta(min_length=1, max_length=1)] = ","

    def bind(self, place: Place) -> Function:
        def apply(values: Values) -> Values:
            return self.read(text.decode(raw(values), place.bounds.text_bytes_max))

        return apply

    def read(self, content: str) -> Values:
        """Raises `BadMedia` with the line and the column."""
        rows = csv.reader(io.StringIO(content, newline=""), delimiter=self.separator, strict=True)
        try:
            names = [name.strip() for name in next(rows, [])]
            wanted = (*self.columns, *([self.index] if self.index else []))
            places = {name: self._place(names, name) for name in wanted}
            found: dict[str, list[str]] = {name: [] for name in wanted}
            for row in rows:
                if not any(field.strip() for field in row):
                    continue
                if len(row) != len(names):
                    raise BadMedia(
                        f"line {rows.line_num} of the CSV has {len(row)} fields, its first line {len(names)}"
                    )
                for name, place in places.items():
                    found[name].append(row[place].strip())
        except csv_error as error:
            raise BadMedia(f"line {rows.line_num} of the CSV cannot be read: {error}") from error
        if not found[self.columns[0]]:
            raise BadMedia(f"the CSV has a line of names ({', '.join(names)[:200] or 'none'}) and no rows")
        columns: dict[str, object] = {name: self._numbers(name, found[name]) for name in self.columns}
        return columns | {"index": found[self.index] if self.index else None}

    def _place(self, names: list[str], name: str) -> int:
        if names.count(name) != 1:
            told = ", ".join(names)[:200] or "none"
            raise BadMedia(f"the CSV is expected to have one column {name!r}; its first line has {told}")
        return names.index(name)

    def _numbers(self, name: str, fields: list[str]) -> Array:
        found = np.empty(len(fields))
        for place, field in enumerate(fields):
            if field.lower() in MISSING:
                if self.missing == "refuse":
                    raise BadMedia(f"row {place + 1} of the CSV has nothing in the column {name!r}, expected a number")
                found[place] = math.nan
                continue
            try:
                found[place] = float(field)
            except ValueError as error:
                raise BadMedia(
                    f"row {place + 1} of the CSV has {short(field, 40)} in the column {name!r}, expected a number"
                ) from error
            if not math.isfinite(found[place]):
                raise BadMedia(
                    f"row {place + 1} of the CSV has {short(field, 40)} in {name!r}, expected a finite number"
                )
        gone = np.isnan(found)
        if gone.all():
            raise BadMedia(f"the column {name!r} of the CSV holds no number")
        if gone.any():
            places = np.arange(len(found))
            found[gone] = np.interp(places[gone], places[~gone], found[~gone])
        return found


class Cast(Step, frozen=True, kw_only=True):
    """A tensor in another datatype; with `batch` a dimension of one in front."""

    input: Name
    output: Annotated[str, Meta(description='"": where it was')] = ""
    datatype: Annotated[str, Meta(description="one of KServe V2's names")] = "FP32"
    batch: bool = False

    def bind(self, place: Place) -> Function:
        _known(self.datatype)
        return self.apply

    def apply(self, values: Values) -> Values:
        array = np.asarray(given(values, self.input)).astype(DTYPES[self.datatype])
        return {self.output or self.input: array[np.newaxis] if self.batch else array}


class Constant(Step, frozen=True, kw_only=True):
    """A tensor of one value throughout: a rate, a first state."""

    output: Name
    datatype: Annotated[str, Meta(description="one of KServe V2's names")] = "FP32"
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**20)], ...], Meta(max_length=8)] = ()
    value: float = 0.0

    def bind(self, place: Place) -> Function:
        _known(self.datatype)
        if math.prod(self.shape) > 2**24:
            raise RefusedModel(f"a constant of shape {list(self.shape)} is too large")
        array = np.full(self.shape, self.value, DTYPES[self.datatype])
        return lambda values: {self.output: array.copy()}


def _known(datatype: str) -> None:
    if datatype not in DTYPES or datatype == "BYTES":
        numbers = ", ".join(name for name in DTYPES if name != "BYTES")
        raise RefusedModel(f"there is no datatype {datatype!r}; known are {numbers}")
