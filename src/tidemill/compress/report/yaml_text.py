"""A recipe's values as YAML; by hand, because a report is also made where no YAML library is. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def yaml_text(value: object) -> str:
    return "\n".join(_lines(value, 0))


def _lines(value: object, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list | tuple) and inner:
                yield f"{pad}{key}:"
                yield from _lines(inner, depth + 1)
            else:
                yield f"{pad}{key}: {_scalar(inner)}"
    elif isinstance(value, list | tuple):
        for inner in value:
            lines = list(_lines(inner, depth + 1)) if isinstance(inner, dict | list | tuple) and inner else []
            first, *others = lines or [_scalar(inner)]
            yield f"{pad}- {first.strip()}"
            yield from others


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "[]" if value in ((), []) else "{}" if value == {} else str(value)
