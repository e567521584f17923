"""A JSON Schema of an answer as the engine's grammar takes it: types one by one, and no keyword that is not held. Pure,
in every process.

The `pattern` of a string or number that comes out is made of classes, groups and counts alone, and is the text as JSON
has it. What comes out may allow less than what went in, never more: optional properties may be left, lists be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.schema.forms import FORMS
from tidemill.core.schema.numbers import between
from tidemill.core.schema.regular import NothingFits, NotRegular, held, matches, parsed, written
from tidemill.core.text import short

Schema = dict[str, Any]
NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
     "$schema", "$comment", "$id"}
)  # fmt: skip
"""They hold nothing; nor does a keyword that begins with `x-`."""
DEFINITIONS: Final = ("$defs", "definitions")
KINDS: Final = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
WORDS: Final[dict[str, tuple[str, ...]]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": NUMBERS,
    "integer": NUMBERS,
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
}
"""The keywords that are held, by the type that they speak of."""
APART_MAX: Final = 64
"""Schemas of one `oneOf`, each of which is held against each other."""
TRIED_CHARACTERS_MAX: Final = 1000
HELD: Final = frozenset(
    {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *(word for each in WORDS.values() for word in each)}
)


def normal(schema: Any, path: str) -> Any:
    """`schema`, which stands at `path`, with the definitions that it names. Raises `NotOffered` for what is not held,
    `WrongValue` for what nothing satisfies or is no schema, both with the place as `param`."""
    try:
        _check_work(schema, path)
        made = _normal({key: value for key, value in schema.items() if key not in DEFINITIONS}, path)
        return made | _defined(schema, made, path)
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError, RecursionError) as error:
        raise WrongValue(f"{path} is no JSON Schema: {str(error)[:100]}", param=path) from error


def _check_work(schema: Any, path: str) -> None:
    """Values are held against the pattern beside them, one by one: only so many characters of them are."""
    left = TRIED_CHARACTERS_MAX
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            if "pattern" in each or "format" in each:
                values = [each.get("const"), *(found if isinstance(found := each.get("enum"), list) else ())]
                left -= sum(len(value) for value in values if isinstance(value, str))
    if left < 0:
        raise NotOffered(
            f"{path} has more than {TRIED_CHARACTERS_MAX} characters of values beside patterns; leave either out",
            param=path,
        )


def _defined(schema: Schema, made: Any, path: str) -> dict[str, Schema]:
    """The definitions that `made` names, and those that these name."""
    found: dict[str, Schema] = {}
    waiting = [made]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
            word, _, name = str(each.get("$ref", "")).removeprefix("#/").partition("/")
            name = name.partition("/")[0].replace("~1", "/").replace("~0", "~")
            if word in DEFINITIONS and name in schema.get(word, {}) and name not in found.setdefault(word, {}):
                found[word][name] = below = _normal(schema[word][name], f"{path}.{word}.{name}"[:200])
                waiting.append(below)
    return found


def fits(value: Any, said: Schema, path: str) -> bool:
    """Whether `value` is what the keywords of its type allow. Raises `NotOffered` for a list or object beside some."""
    kinds = _kinds(said)
    if kinds and not any(is_a(value, kind) for kind in kinds):
        return False
    if isinstance(value, str):
        low, high = said.get("minLength", 0), said.get("maxLength", len(value))
        found = [said["pattern"]] if "pattern" in said else []
        found += [FORMS[said["format"]]] if str(said.get("format")) in FORMS else []
        try:
            return low <= len(value) <= high and all(matches(parsed(each), value) for each in found)
        except NotRegular as error:
            raise _not_held(path, "pattern", f"({error})") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        tests: dict[str, Callable[[Any], bool]] = {
            "minimum": lambda bound: value >= bound,
            "maximum": lambda bound: value <= bound,
            "exclusiveMinimum": lambda bound: value > bound,
            "exclusiveMaximum": lambda bound: value < bound,
            "multipleOf": lambda bound: bound > 0 and abs(value / bound - round(value / bound)) < 1e-9,
        }
        return all(test(said[word]) for word, test in tests.items() if word in said)
    if isinstance(value, list | dict):
        for word in WORDS["array" if isinstance(value, list) else "object"]:
            if word in said:
                raise _not_held(path, word, "beside values that are spelt out")
    return True


def is_a(value: Any, kind: str) -> bool:
    """Whether JSON's `value` is of that type."""
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, KINDS[kind])  # type: ignore[arg-type]


def _kinds(said: Schema) -> list[str]:
    kinds = said.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _not_held(path: str, word: str, why: str = "") -> NotOffered:
    place = f"{path}.{word}"[:200]
    told = f" {why}" if why else ""
    return NotOffered(f"{place} is not held here{told}; leave it out, and check the answer for it", param=place)


def _bad(place: str, what: str) -> WrongValue:
    return WrongValue(f"{place[:200]} {what}", param=place[:200])


def _only(said: Schema, path: str, known: Iterable[str], beside: str) -> None:
    for word in said:
        if word not in known:
            raise _not_held(path, word, f"beside {beside}")


def _normal(schema: Any, path: str) -> Any:
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise _bad(path, f"is {short(schema)}, which nothing satisfies")
    said = {key: value for key, value in schema.items() if key not in NOTES and not key.startswith("x-")}
    for word in said:
        if word not in HELD:
            raise _not_held(path, word)
    if "$ref" in said:
        _only(said, path, {"$ref"}, "$ref")
        return said
    if "allOf" in said:
        _only(said, path, {"allOf"}, "allOf")
        if len(said["allOf"]) != 1:
            raise _not_held(path, "allOf", "with several schemas")
        return _normal(said["allOf"][0], f"{path}.allOf[0]")
    for word in ("anyOf", "oneOf"):
        if word in said:
            return _some(said, word, path)
    if "enum" in said or "const" in said:
        values = said.get("enum", [said.get("const")])
        good = [each for each in values if fits(each, said, path) and ("const" not in said or each == said["const"])]
        if not good:
            raise _bad(path, f"takes {short(values)}, and what stands beside it allows none of them")
        return {"enum": good}
    kinds = _kinds(said) or _meant(said, path)
    if not kinds:
        return {}
    made = [_typed(kind, said, path) for kind in kinds]
    return made[0] if len(made) == 1 else {"anyOf": made}


def _meant(said: Schema, path: str) -> list[str]:
    """The type that keywords without one speak of."""
    kinds = {kind for kind, words in WORDS.items() if any(word in said for word in words)} - {"integer"}
    if len(kinds) > 1:
        raise NotOffered(f"{path} speaks of {' and '.join(sorted(kinds))} without a type; name it", param=path)
    return list(kinds)


def _some(said: Schema, word: str, path: str) -> Schema:
    _only(said, path, {word, "type"}, word)
    parts = said[word]
    kinds = _kinds(said)
    if kinds:
        for each in parts:
            if not isinstance(each, dict) or not _kinds(each) or not set(_kinds(each)) <= set(kinds):
                raise _not_held(path, "type", f"beside {word}, unless each schema there names a type out of it")
    if word == "oneOf":
        if len(parts) > APART_MAX:
            raise _not_held(path, word, f"with more than {APART_MAX} schemas (say anyOf)")
        for index, each in enumerate(parts):
            if any(not _apart(each, other) for other in parts[:index]):
                raise _not_held(path, word, "where something may fit two of its schemas (say anyOf)")
    return {"anyOf": [_normal(each, f"{path}.{word}[{index}]") for index, each in enumerate(parts)]}


def _apart(left: Any, right: Any) -> bool:
    """Whether it can be seen that nothing fits both."""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return False
    values, others = _values(left), _values(right)
    if values is not None and others is not None:
        try:
            return set(values).isdisjoint(others)
        except TypeError:  # lists and objects
            return False
    kinds, more = set(_kinds(left)), set(_kinds(right))
    if kinds and more and not kinds & more and not {"integer", "number"} <= kinds | more:
        return True
    if kinds != {"object"} or more != {"object"}:
        return False
    mine, its = left.get("properties", {}), right.get("properties", {})
    both = set(left.get("required", ())) & set(right.get("required", ())) & set(mine) & set(its)
    return any(_values(mine[name]) is not None and _apart(mine[name], its[name]) for name in both)


def _values(schema: Any) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _typed(kind: str, said: Schema, path: str) -> Schema:
    said = {word: said[word] for word in WORDS.get(kind, ()) if word in said}
    match kind:
        case "string":
            return {"type": kind, **_string(said, path)}
        case "integer" | "number":
            if "multipleOf" in said and not (said.pop("multipleOf") == 1 and kind == "integer"):
                raise _not_held(path, "multipleOf")
            return {"type": kind, **_number(said, kind, path)}
        case "array":
            said = _array(said, path)
        case "object":
            said = _object(said, path)
    return {"type": kind, **said}


def _string(said: Schema, path: str) -> Schema:
    word = "format" if "format" in said else "pattern"
    if word not in said:
        return said
    if word == "format" and (str(said["format"]) not in FORMS or "pattern" in said):
        why = "beside pattern" if "pattern" in said else f"as {short(said['format'])} (held are {', '.join(FORMS)})"
        raise _not_held(path, word, why)
    place = f"{path}.{word}"
    try:
        node = parsed(FORMS[said["format"]] if word == "format" else said["pattern"])
        return {"pattern": f"^{written(held(node, said.get('minLength', 0), said.get('maxLength')))}$"}
    except NotRegular as error:
        raise NotOffered(f"{place} {error}", param=place) from error
    except NothingFits as error:
        raise _bad(place, str(error)) from error


def _number(said: Schema, kind: str, path: str) -> Schema:
    if not said:
        return {}
    try:
        return {"pattern": f"^{between(said, kind == 'integer')}$"}
    except NotRegular as error:
        raise NotOffered(f"{path} {error}", param=path) from error
    except NothingFits as error:
        raise _bad(path, str(error)) from error


def _array(said: Schema, path: str) -> Schema:
    first = [_normal(each, f"{path}.prefixItems[{index}]") for index, each in enumerate(said.get("prefixItems", ()))]
    low, high = said.get("minItems", 0), said.get("maxItems")
    items = said.get("items", True)
    if items is False or (first and "items" not in said and low <= len(first)):
        high = len(first) if high is None else min(high, len(first))
        items = True
    if high is not None and low > high:
        raise _bad(path, f"wants {low} items at least, and has room for {high}")
    if said.get("uniqueItems") and (high is None or high > 1):
        raise _not_held(path, "uniqueItems")
    made: Schema = {"minItems": low} if low else {}
    made |= {} if high is None else {"maxItems": high}
    if first and high != 0:
        made["prefixItems"] = first if high is None else first[:high]
    if items is not True and (high is None or high > len(first)):
        made["items"] = _normal(items, f"{path}.items")
    return made


def _object(said: Schema, path: str) -> Schema:
    given, required = said.get("properties", {}), list(said.get("required", ()))
    others = said.get("additionalProperties", True)
    properties = {name: _normal(each, f"{path}.properties.{name}"[:200]) for name, each in given.items()}
    rest = {} if others in (True, False) else _normal(others, f"{path}.additionalProperties")
    low, high = said.get("minProperties", 0), said.get("maxProperties")
    for name in required:
        if name not in properties and others is False:
            raise _bad(f"{path}.required", f"wants {short(name)}, which additionalProperties: false forbids")
        properties.setdefault(name, rest)
    if not properties and others is not False:
        if low > 1:
            raise _not_held(path, "minProperties", "above 1 without names")  # a name may be drawn twice
        bounds: Schema = {word: said[word] for word in ("minProperties", "maxProperties") if word in said}
        return {**bounds, "additionalProperties": rest}
    required = [name for name in properties if name in required]
    free = [name for name in properties if name not in required]
    if low > len(properties):
        if others is False:
            raise _bad(path, f"wants {low} properties at least, and has room for {len(properties)}")
        raise _not_held(path, "minProperties", "above the number of properties that are named")
    if high is not None and len(required) > high:
        raise _bad(path, f"wants {high} properties at most, of which {len(required)} are required")
    while len(required) < low:
        required.append(free.pop(0))
    kept = set(required) | set(free if high is None else free[: high - len(required)])
    return {
        "properties": {name: each for name, each in properties.items() if name in kept},
        "required": required,
        "additionalProperties": False,
    }
