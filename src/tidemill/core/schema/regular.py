"""A regular expression as the characters that may stand in a JSON string, one after another; pure, in every process.

What is drawn by it lies within a string: a quote, a backslash and white space are written by their escapes where the
expression names them, and wide classes (`.`, `[^,]`, `\\S`) leave them out. A few classes are narrower than their name,
so that validators which read Unicode and those which read ASCII both find that it fits.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

TOP: Final = 0x10FFFF
WIDE: Final = 512
"""Characters; a class of more than that is wide."""
WIDE_COST: Final = 8
COST_MAX: Final = 2_400
"""Characters one after another that an expression may come to, wide ones counted `WIDE_COST` times."""
STEPS_MAX: Final = 200_000
"""A step is a place in a text that is looked at: some tenth of a second for all of them."""
DEPTH_MAX: Final = 64
_ESCAPED: Final = {'"': '"', "\\": "\\", "\n": "n", "\t": "t", "\r": "r", "\f": "f", "\b": "b"}
_COUNTED = re.compile(r"\{(\d{0,5})(,?)(\d{0,5})\}")
Ranges: TypeAlias = tuple[tuple[int, int], ...]


class NotRegular(Exception):
    """The words say what of the expression cannot be followed, after the name of its place."""


class NothingFits(Exception):
    """Nothing is both; the words say what."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these, first and last, in order."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    sign: str


Node: TypeAlias = "Chars | Sequence | Either | Repeat | Anchor"


def parsed(pattern: str) -> Node:
    """The texts that `pattern`, which is searched for as JSON Schema has it, is found in. Raises `NotRegular`."""
    node = _anchored(_Reader(pattern).read())
    if (most := cost(node)) > COST_MAX:
        raise NotRegular(f"comes to {most} characters in a row, wide ones such as . counted {WIDE_COST} times; at most"
                         f" {COST_MAX} are followed")  # fmt: skip
    return node


def cost(node: Node) -> int:
    match node:
        case Chars():
            return WIDE_COST if _count(node.ranges) > WIDE else 1
        case Sequence() | Either():
            return sum(map(cost, node.parts))
        case Repeat():
            return cost(node.part) * max(1, node.low if node.high is None else node.high)
    return 0


def length(node: Node) -> tuple[int, int | None]:
    """The fewest and the most characters; None: without end."""
    match node:
        case Chars():
            return 1, 1
        case Sequence():
            each = [length(part) for part in node.parts]
            highs = [high for _, high in each]
            return sum(low for low, _ in each), None if None in highs else sum(high or 0 for high in highs)
        case Either():
            each = [length(part) for part in node.parts]
            highs = [high for _, high in each]
            return min(low for low, _ in each), None if None in highs else max(high or 0 for high in highs)
        case Repeat():
            low, high = length(node.part)
            endless = high is None or (node.high is None and high > 0)
            return low * node.low, None if endless else (high or 0) * (node.high or 0)
    return 0, 0


def matches(node: Node, text: str) -> bool:
    """Whether the whole of `text` is one of `node`. Raises `NotRegular` where that takes more than `STEPS_MAX` steps.

    All ways through `node` are gone at once (Thompson, 1968), so that none is gone twice: what callers bring must not
    be searched by backtracking.
    """
    return len(text) in _Walk(text).ends(node, {0})


class _Walk:
    def __init__(self, text: str) -> None:
        self._points = [ord(each) for each in text]
        self._steps = 0

    def ends(self, node: Node, starts: set[int]) -> set[int]:
        """Where a text of `node` that begins at one of `starts` may end."""
        self._steps += len(starts) + 1
        if self._steps > STEPS_MAX:
            raise NotRegular("takes too long to hold against a value beside it")
        match node:
            case Chars():
                here = self._points
                return {at + 1 for at in starts if at < len(here) and _within(here[at], node.ranges)}
            case Sequence():
                for part in node.parts:
                    starts = self.ends(part, starts)
                return starts
            case Either():
                return set().union(*(self.ends(part, starts) for part in node.parts))
            case Repeat():
                return self._repeated(node, starts)
        raise NotRegular("has ^ or $ where something stands before or behind it")

    def _repeated(self, node: Repeat, starts: set[int]) -> set[int]:
        for _ in range(node.low):
            starts = self.ends(node.part, starts)
        found, fresh = set(starts), starts
        left = len(self._points) + 1 if node.high is None else node.high - node.low
        while fresh and left:
            fresh = self.ends(node.part, fresh) - found
            found |= fresh
            left -= 1
        return found


def _within(point: int, ranges: Ranges) -> bool:
    at = bisect_right(ranges, (point, TOP)) - 1
    return at >= 0 and ranges[at][0] <= point <= ranges[at][1]


def held(node: Node, low: int, high: int | None) -> Node:
    """Texts of `node` that have `low` to `high` characters; not always all. Raises `NotRegular`, `NothingFits`."""
    fewest, most = length(node)
    if (high is not None and fewest > high) or (most is not None and most < low):
        raise NothingFits(f"comes to {fewest} characters at least and {'any number' if most is None else most} at most,"
                          f" which minLength and maxLength forbid")  # fmt: skip
    if low <= fewest and (high is None or (most is not None and most <= high)):
        return node
    if isinstance(node, Either):
        fits = []
        for part in node.parts:
            try:
                fits.append(held(part, low, high))
            except NothingFits:
                continue
        if not fits:
            raise NothingFits("has no length that minLength and maxLength allow")
        return Either(tuple(fits))
    parts = list(node.parts) if isinstance(node, Sequence) else [node]
    room_of = {
        at: TOP if part.high is None else part.high - part.low
        for at, part in enumerate(parts)
        if isinstance(part, Repeat) and isinstance(part.part, Chars)
    }
    loose = sorted(room_of, key=room_of.__getitem__)  # what the narrow ones leave goes to the wide ones
    if any(length(part)[0] != length(part)[1] for at, part in enumerate(parts) if at not in loose):
        raise NotRegular("leaves its length open in several ways; with minLength or maxLength beside it, say in the"
                         " pattern itself how often what repeats")  # fmt: skip
    short, room = max(0, low - fewest), None if high is None else high - fewest
    for left, at in enumerate(loose):
        part = parts[at]
        if not isinstance(part, Repeat):
            continue
        share = None if room is None else -(-room // (len(loose) - left))
        free = None if part.high is None else part.high - part.low
        extra = share if free is None else free if share is None else min(free, share)
        raised = short if extra is None else min(short, extra)
        parts[at] = Repeat(part.part, part.low + raised, None if extra is None else part.low + extra)
        short -= raised
        room = None if room is None else room - (extra or 0)
    if short:
        raise NotRegular("leaves too few of its parts open for this minLength and maxLength")
    return Sequence(tuple(parts))


def written(node: Node, between: str = "") -> str:
    """As an expression of classes, groups and counts alone; as a grammar writes it with a blank `between`."""
    match node:
        case Chars():
            return _class(node.ranges, between)
        case Sequence():
            return between.join(written(part, between) for part in node.parts if part != Sequence(())) or _nothing(
                between
            )
        case Either():
            return f"({'|'.join(written(part, between) for part in node.parts)})"
        case Repeat():
            inner = written(node.part, between)
            low, high = node.low, node.high
            if high == 0:
                return _nothing(between)
            count = (("*", "+")[low] if low < 2 else f"{{{low},}}") if high is None else f"{{{low},{high}}}"
            return f"{inner if isinstance(node.part, Chars | Either) else f'({inner})'}{count}"
    raise NotRegular("has ^ or $ where something stands before or behind it")


def _nothing(between: str) -> str:
    return '""' if between else "()"


# -- classes ---------------------------------------------------------------------------------------------------------


def _union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if made and low <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], high))
        else:
            made.append((low, high))
    return tuple(made)


def _without(ranges: Ranges) -> Ranges:
    made, at = [], 0
    for low, high in ranges:
        if low > at:
            made.append((at, low - 1))
        at = high + 1
    return tuple(made) if at > TOP else (*made, (at, TOP))


def _both(left: Ranges, right: Ranges) -> Ranges:
    return _without(_union((*_without(left), *_without(right))))


def _count(ranges: Ranges) -> int:
    return sum(high - low + 1 for low, high in ranges)


def _points(text: str) -> Ranges:
    return _union((ord(each), ord(each)) for each in text)


DIGITS: Final = ((48, 57),)
LETTERS: Final = ((48, 57), (65, 90), (95, 95), (97, 122))
BLANKS: Final = _points(" \t\n\r\f")
_PLAIN: Final = _without(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F), (0xD800, 0xDFFF), (0xFFFE, 0xFFFF)))
_LINE: Final = _without(_points("\n\r\x85\u2028\u2029"))


@lru_cache(maxsize=8)
def _other(kind: str) -> Ranges:
    """What is neither in ASCII nor in Unicode of the class: `\\W` among ASCII and signs, the others below U+10000."""
    expression = re.compile({"d": r"\D", "w": r"\W", "s": r"\S"}[kind])
    places = range(0x20, 0x7F) if kind == "w" else (*range(0x20, 0xD800), *range(0xE000, 0xFFFE))
    return _union((each, each) for each in places if expression.match(chr(each)) and each != 0xFEFF)


def _class(ranges: Ranges, between: str) -> str:
    plain = _both(ranges, _PLAIN)
    escapes = ""
    if _count(ranges) <= WIDE:
        escapes = "".join(
            sign for each, sign in _ESCAPED.items() if any(low <= ord(each) <= high for low, high in ranges)
        )
    parts = []
    if plain:
        parts.append("[" + "".join(_range(low, high) for low, high in plain) + "]")
    if escapes:
        signs = "".join(_range(ord(each), ord(each)) for each in escapes)
        parts.append(f"{_range_class(0x5C)}{between}[{signs}]")
    if not parts:
        raise NotRegular("names a character that no answer holds, such as a control character")
    return parts[0] if len(parts) == 1 and plain else f"({'|'.join(parts)})"


def _range_class(point: int) -> str:
    return f"[{_range(point, point)}]"


def _range(low: int, high: int) -> str:
    return _point(low) if low == high else f"{_point(low)}-{_point(high)}"


def _point(point: int) -> str:
    character = chr(point)
    if character.isascii() and character.isalnum():
        return character
    return f"\\u{point:04X}" if point <= 0xFFFF else character


# -- reading ---------------------------------------------------------------------------------------------------------

_SIGNS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_KINDS: Final = {"d": DIGITS, "w": LETTERS, "s": BLANKS}


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def read(self) -> Node:
        node = self._either(0)
        if self._at < len(self._pattern):
            raise NotRegular("closes a group that it does not open")
        return node

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _taken(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _either(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise NotRegular(f"nests more than {DEPTH_MAX} deep")
        parts = [self._sequence(depth)]
        while self._taken("|"):
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._next() and self._next() not in "|)":
            parts.append(self._counted(self._atom(depth)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _counted(self, node: Node) -> Node:
        bounds: tuple[int, int | None] | None = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._next())
        if bounds is not None:
            self._at += 1
        elif (found := _COUNTED.match(self._pattern, self._at)) and (found[1] or found[3]):
            low = int(found[1] or 0)
            bounds = low, (int(found[3]) if found[3] else None) if found[2] else low
            self._at = found.end()
        else:
            return node
        if isinstance(node, Anchor):
            raise NotRegular("repeats ^ or $")
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise NotRegular("counts from more to less")
        self._taken("?")  # that the shortest is preferred changes nothing of what fits
        if self._next() in ("*", "+", "?") and self._next():
            raise NotRegular("repeats a repetition")
        return Repeat(node, *bounds)

    def _atom(self, depth: int) -> Node:
        character = self._next()
        self._at += 1
        match character:
            case "(":
                if self._taken("?") and not self._taken(":"):
                    raise NotRegular("looks around, sets flags or names a group, which is not followed")
                node = self._either(depth + 1)
                if not self._taken(")"):
                    raise NotRegular("opens a group that it does not close")
                return node
            case "[":
                return Chars(self._class())
            case ".":
                return Chars(_LINE)
            case "^" | "$":
                return Anchor(character)
            case "*" | "+" | "?":
                raise NotRegular("repeats nothing")
            case "\\":
                return Chars(self._escape(inside=False))
        return Chars(_points(character))

    def _escape(self, inside: bool) -> Ranges:
        character = self._next()
        self._at += 1
        if character in _KINDS and character:
            return _KINDS[character]
        if character.lower() in _KINDS and character:
            return _other(character.lower())
        if character in _SIGNS:
            return _points(_SIGNS[character])
        if character == "b" and inside:
            return _points("\b")
        digits = {"x": 2, "u": 4}.get(character, 0)
        if digits:
            code = self._pattern[self._at : self._at + digits]
            if not re.fullmatch(r"[0-9A-Fa-f]+", code) or len(code) != digits:
                raise NotRegular(f"has \\{character} without {digits} digits")
            self._at += digits
            return ((int(code, 16), int(code, 16)),)
        if not character or (character.isalnum() and character.isascii()):
            raise NotRegular(f"has \\{character}, which is not followed")
        return _points(character)

    def _class(self) -> Ranges:
        other = self._taken("^")
        found: list[tuple[int, int]] = []
        first = True
        while first or self._next() != "]":
            low = self._member()
            first = False
            if self._next() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
                if _count(low) != 1 or _count(high) != 1 or low > high:
                    raise NotRegular("has a range of characters without two ends in order")
                found.append((low[0][0], high[0][0]))
            else:
                found += low
        self._at += 1
        ranges = _union(found)
        return _without(ranges) if other else ranges

    def _member(self) -> Ranges:
        character = self._next()
        if not character:
            raise NotRegular("opens a class that it does not close")
        self._at += 1
        return self._escape(inside=True) if character == "\\" else _points(character)


def _anchored(node: Node) -> Node:
    """The whole text instead of what is searched for in it."""
    if isinstance(node, Either):
        return Either(tuple(map(_anchored, node.parts)))
    parts = list(node.parts) if isinstance(node, Sequence) else [node]
    if len(parts) == 1 and isinstance(parts[0], Either | Sequence):
        return _anchored(parts[0])
    anything = Repeat(Chars(_without(())), 0, None)
    before, behind = [anything], [anything]
    if parts and parts[0] == Anchor("^"):
        before, parts = [], parts[1:]
    if parts and parts[-1] == Anchor("$"):
        behind, parts = [], parts[:-1]
    for each in _all(Sequence(tuple(parts))):
        if isinstance(each, Anchor):
            raise NotRegular("has ^ or $ where something stands before or behind it")
    return Sequence((*before, *parts, *behind))


def _all(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Sequence | Either):
        for part in node.parts:
            yield from _all(part)
    elif isinstance(node, Repeat):
        yield from _all(node.part)
