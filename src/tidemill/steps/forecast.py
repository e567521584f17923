"""The step from a forecaster's numbers to a forecast with its dates; pure, on the steps' threads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia
from tidemill.steps.step import ANSWER, Name, Step, Values, take

FORMATS = ("%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m", "%Y")


class Forecast(Step, frozen=True, kw_only=True):
    """The values of [1, horizon] as a list of `{"step", "value"}`, with `index` where the CSV told when.

    Dates go on by the distance of the last two; years, and months written YYYY-MM, by the calendar.
    """

    input: Name
    index: Annotated[str, Meta(description="the list of dates that the step `csv` gave")] = "index"
    output: Name = ANSWER

    def apply(self, values: Values) -> Values:
        numbers = take(values, self.input).astype(np.float64).ravel()
        known = values.get(self.index)
        dates = following(list(known), len(numbers)) if known else None
        told: list[dict[str, Any]] = []
        for place, value in enumerate(numbers):
            entry: dict[str, Any] = {"step": place + 1, "value": float(f"{value:.6g}")}
            told.append({"index": dates[place], **entry} if dates else entry)
        return {self.output: told}


def following(index: list[str], count: int) -> list[str] | None:
    """The next `count` entries behind `index`; None where the last two tell no step. Raises `BadMedia` backwards."""
    last = index[-2:]
    if len(last) < 2:
        return None
    for style in FORMATS:
        try:
            before, after = (datetime.strptime(each, style) for each in last)
        except ValueError:
            continue
        if after <= before:
            raise BadMedia(f"the index of the CSV goes from {last[0]!r} to {last[1]!r}; expected one that rises")
        if style in ("%Y", "%Y-%m"):
            months = (after.year - before.year) * 12 + after.month - before.month
            return [_later(after, months * place, style) for place in range(1, count + 1)]
        try:
            return [(after + (after - before) * place).strftime(style) for place in range(1, count + 1)]
        except OverflowError:
            return None
    return _counted(last, count)


def _later(at: datetime, months: int, style: str) -> str:
    whole = at.year * 12 + at.month - 1 + months
    year, month = f"{whole // 12:04d}", f"{whole % 12 + 1:02d}"
    return year if style == "%Y" else f"{year}-{month}"


def _counted(last: list[str], count: int) -> list[str] | None:
    """Whole numbers go on as numbers."""
    if not all(each.lstrip("-").isdigit() and len(each) < 18 for each in last):
        return None
    before, after = (int(each) for each in last)
    return [str(after + (after - before) * place) for place in range(1, count + 1)]
