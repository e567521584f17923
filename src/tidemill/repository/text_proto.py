"""Configuration files in protobuf's text form; read by the owner and the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tidemill.core import schemas
from tidemill.core.errors import InvalidSetting

BYTES_MAX = 4_000_000
PLACE = re.compile(r"^\d+:\d+ : ")
"""Line and column of a field's words, which stand elsewhere in the file."""
OPENING, CLOSING = frozenset("{[<"), frozenset("}]>")


def text_of(path: Path) -> str:
    """Raises `InvalidSetting` for a file that is missing, too long or no text."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise InvalidSetting(f"{path} has {path.stat().st_size} bytes, a configuration has {BYTES_MAX} at most")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}") from error


def parse(text: str, kind: str, path: Path) -> Any:
    """The message `kind` that `text`, from `path`, says. Raises `InvalidSetting` with the line."""
    message = schemas.message(kind)()
    try:
        text_format.Parse(text, message)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"{path}:{error}") from error
    return message


def parse_fields(fields: list[tuple[str, str]], kind: str, path: Path) -> Any:
    """The message `kind` that `fields` (see `split`) say. Raises `InvalidSetting` with the field's name, also for
    one within it that is not known."""
    message = schemas.message(kind)()
    for name, said in fields:
        try:
            text_format.Merge(said, message)
        except (text_format.ParseError, ValueError, RecursionError) as error:
            told = PLACE.sub("", str(error))
            raise InvalidSetting(f"{path}: in {name}: {told}") from error
    return message


def split(text: str, path: Path) -> list[tuple[str, str]]:
    """The fields of the outermost message in their order, each by its name and as it is written. Raises
    `InvalidSetting`."""
    found: list[tuple[str, str]] = []
    tokens = text_format.Tokenizer(text.splitlines())
    try:
        while not tokens.AtEnd():
            name = tokens.token
            words = [tokens.ConsumeIdentifier()]
            if tokens.TryConsume(":"):
                words.append(":")
            _take_value(tokens, words)
            found.append((name, " ".join(words)))
            _ = tokens.TryConsume(",") or tokens.TryConsume(";")
    except text_format.ParseError as error:
        raise InvalidSetting(f"{path}:{error}") from error
    return found


def _take_value(tokens: Any, words: list[str]) -> None:
    if tokens.token not in OPENING:
        if tokens.token == "-":  # noqa: S105 - a sign
            _take(tokens, words)
        _take(tokens, words)
        while tokens.token[:1] in ("'", '"'):  # strings that follow one another are one
            _take(tokens, words)
        return
    depth = 0
    while not tokens.AtEnd():
        depth += (tokens.token in OPENING) - (tokens.token in CLOSING)
        _take(tokens, words)
        if depth == 0:
            return


def _take(tokens: Any, words: list[str]) -> None:
    words.append(tokens.token)
    tokens.NextToken()
