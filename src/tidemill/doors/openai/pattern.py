"""Judges a regular expression before an engine turns it into an automaton: bounded in size, and regular. Pure."""

from __future__ import annotations

import re
from typing import Final

from tidemill.core.text import short

PATTERN_CHARACTERS_MAX: Final = 512
REPEATS_MAX: Final = 1000
"""States that nested repetition may make of one character: `(a{30}){30}` makes 900."""
_COUNTED = re.compile(r"\{(\d{0,9})(?:,(\d{0,9}))?\}")


def why_not(pattern: object) -> str:
    """What is wrong with `pattern`, after the name of its place; "" where it is good."""
    if not isinstance(pattern, str):
        return f"is {short(pattern)}, expected a regular expression"
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        return f"has {len(pattern)} characters, at most {PATTERN_CHARACTERS_MAX} are taken"
    if re.search(r"\(\?(?!:)|\\[1-9]", pattern):
        return "looks around, refers back or names a group, which no automaton does"
    if _repeats(pattern) > REPEATS_MAX:
        return f"repeats what it repeats more than {REPEATS_MAX} times"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {str(error)[:100]}"
    return ""


def _repeats(pattern: str) -> int:
    """The largest product of counts along one line of nested groups."""
    most, at = 1, 0
    stack: list[int] = [1]  # for each open group, the largest product within it
    last = 1  # the product of what a count would repeat
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at, last = at + 2, 1
            continue
        if character == "[":
            end = _class_end(pattern, at)
            at, last = end, 1
            continue
        if character == "(":
            stack.append(1)
        elif character == ")" and len(stack) > 1:
            last = stack.pop()
            stack[-1] = max(stack[-1], last)
        elif character == "{" and (found := _COUNTED.match(pattern, at)):
            last *= max(1, *(int(each) for each in found.groups() if each)) if any(found.groups()) else 1
            stack[-1] = max(stack[-1], last)
            most = max(most, last)
            at = found.end()
            continue
        elif character not in "*+?":
            last = 1
        at += 1
    return most


def _class_end(pattern: str, at: int) -> int:
    """Behind the `]` of the class that begins at `at`."""
    at += 1
    if at < len(pattern) and pattern[at] == "^":
        at += 1
    if at < len(pattern) and pattern[at] == "]":
        at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1
