"""The calls of functions in the chunks of an upstream's answer, numbered in the order in which they begin; pure."""

from __future__ import annotations

from typing import Any, Final

from tidemill.core.generation import CallDelta

CALLS_MAX: Final = 1024
"""More calls than this in one choice are no answer."""


class Calls:
    """Those of one choice.

    A piece belongs to the call that began at its `index`. Servers that tell none, or one for all, begin a call with an
    `id` that was not there before.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._at: dict[int, int] = {}

    def take(self, told: Any) -> tuple[CallDelta, ...]:
        """The list `tool_calls` of a chunk. Raises `ValueError`, `TypeError`, `AttributeError` for what is none."""
        return tuple(self._piece(each) for each in told or ())

    def _piece(self, told: dict[str, Any]) -> CallDelta:
        function = told.get("function") or {}
        call_id, name, arguments = _text(told, "id"), _text(function, "name"), _text(function, "arguments")
        index = told.get("index")
        if index is None:
            index = len(self._ids) if call_id and call_id not in self._ids else max(0, len(self._ids) - 1)
        if type(index) is not int:
            raise ValueError(f"a call has the index {index!r:.40}")
        call = self._at.get(index)
        if call is not None and not (name and call_id and self._ids[call] and call_id != self._ids[call]):
            return CallDelta(call, arguments=arguments)
        if not name:
            raise ValueError("a call begins without a name")
        if len(self._ids) >= CALLS_MAX:
            raise ValueError(f"there are more than {CALLS_MAX} calls")
        self._at[index] = call = len(self._ids)
        self._ids.append(call_id)
        return CallDelta(call, call_id, name, arguments)


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} of a call is {value!r:.40}")
    return value or ""
