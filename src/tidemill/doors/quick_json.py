"""Large JSON bodies of numbers, read by simdjson where it is installed: a list becomes an array without a Python float
for each value. Pure, on the owner's loop.

It reads less than JSON holds, and never differently: what it does not know for certain is left to the reader that does.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np

from tidemill.core.tensor import Array

simdjson: Any  # its own types say of every value that it may be any other
try:
    simdjson = import_module("simdjson")
except ImportError:  # there is not one for every Python
    simdjson = None


def with_arrays(body: bytes) -> dict[str, Any] | None:
    """A V2 request with the `data` of each input as an FP64 array, the rest as plain values; None for a body that is
    not JSON, or whose `data` are not all flat lists of numbers.

    Each call has a parser of its own: one that is kept would keep the memory of the largest body.
    """
    if simdjson is None:
        return None
    try:
        whole = simdjson.Parser().parse(body)
        told = {key: _plain(whole[key]) for key in _keys(whole) if key != "inputs"}
        inputs = [_input(each) for each in whole["inputs"]]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):  # the parser's own are among them
        return None
    # simdjson flattens lists within lists. These are all that there are when each `data` is one list.
    known = 1 + _lists(told) + sum(1 + _lists({**each, "data": 0}) for each in inputs)
    return told | {"inputs": inputs} if body.count(b"[") == known else None


def with_nested(body: bytes, names: Collection[str]) -> dict[str, Any] | None:
    """An object whose one member of `names` is a list of lists of numbers, as an FP64 array of that shape, the rest as
    plain values; None for anything else, ragged lists included."""
    if simdjson is None:
        return None
    try:
        whole = simdjson.Parser().parse(body)
        keys = _keys(whole)
        told = {key: _plain(whole[key]) for key in keys if key not in names}
        (name,) = (key for key in keys if key in names)
        sides, known = _sides(whole[name])
        array: Array = np.frombuffer(whole[name].as_buffer(of_type="d"))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, RecursionError):
        return None
    if body.count(b"[") != known + _lists(told) or array.size != math.prod(sides):
        return None
    return told | {name: array.reshape(sides)}


def _sides(nested: Any) -> tuple[list[int], int]:
    """The shape that the first of all lists tell, and how many lists there are. Raises `ValueError` where another list
    has another length; what lies in the innermost is not looked at."""
    sides: list[int] = []
    level = nested
    while isinstance(level, simdjson.Array):
        sides.append(len(level))
        level = level[0]
    known, lists = 0, [nested]
    for depth, side in enumerate(sides):
        known += len(lists)
        if any(len(each) != side for each in lists):
            raise ValueError("the lists are not of one length")
        lists = [inner for each in lists for inner in each] if depth + 1 < len(sides) else []
    return sides, known


def _input(given: Any) -> dict[str, Any]:
    told: dict[str, Any] = {key: _plain(given[key]) for key in _keys(given) if key != "data"}
    data: Array = np.frombuffer(given["data"].as_buffer(of_type="d"))
    return told | {"data": data}


def _keys(value: Any) -> list[str]:
    """Raises `ValueError` where one is there twice: which of them counts is not ours to say."""
    keys = list(value.keys())
    if len(set(keys)) != len(keys):
        raise ValueError("a key is there twice")
    return keys


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _lists(value: Any) -> int:
    """How many lists there are in it, itself included."""
    if isinstance(value, list):
        return 1 + sum(map(_lists, value))
    return sum(map(_lists, value.values())) if isinstance(value, dict) else 0
