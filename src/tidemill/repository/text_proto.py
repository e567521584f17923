"""Configuration files in protobuf's text form; read by the owner and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tidemill.core import schemas
from tidemill.core.errors import InvalidSetting

BYTES_MAX = 4_000_000
OPENING, CLOSING = frozenset("{[<"), frozenset("}]>")


def text_of(path: Path) -> str:
    """Raises `InvalidSetting` for a file that is missing, too long or no text."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise InvalidSetting(f"{path} has {path.stat().st_size} bytes, a configuration has {BYTES_MAX} at most")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}") from error


def parse(text: str, kind: str, path: Path, lenient: bool = False) -> Any:
    """The message `kind` that `text`, from `path`, says; `lenient` passes over fields that are not known. Raises
    `InvalidSetting` with the line."""
    message = schemas.message(kind)()
    try:
        text_format.Parse(text, message, allow_unknown_field=lenient)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"{path}:{error}") from error
    return message


def fields(text: str, path: Path) -> list[str]:
    """The names of the fields of the outermost message, in their order. Raises `InvalidSetting`."""
    found: list[str] = []
    tokens = text_format.Tokenizer(text.splitlines())
    try:
        while not tokens.AtEnd():
            found.append(tokens.ConsumeIdentifier())
            tokens.TryConsume(":")
            _pass_value(tokens)
            _ = tokens.TryConsume(",") or tokens.TryConsume(";")
    except text_format.ParseError as error:
        raise InvalidSetting(f"{path}:{error}") from error
    return found


def _pass_value(tokens: Any) -> None:
    if tokens.token not in OPENING:
        tokens.TryConsume("-")
        tokens.NextToken()
        while tokens.token[:1] in ("'", '"'):  # strings that follow one another are one
            tokens.NextToken()
        return
    depth = 0
    while not tokens.AtEnd():
        depth += (tokens.token in OPENING) - (tokens.token in CLOSING)
        tokens.NextToken()
        if depth == 0:
            return
