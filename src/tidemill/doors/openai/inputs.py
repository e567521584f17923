"""Prompts and texts in the four forms that OpenAI takes: a string, strings, tokens, lists of tokens. Pure."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import PromptTooLong, WrongDatatype, WrongValue
from tidemill.core.generation import Generate, Speaks, Tokenise
from tidemill.core.request import Work
from tidemill.core.text import short
from tidemill.doors.openai.bounds import CHARACTERS_A_TOKEN_MAX
from tidemill.doors.openai.fields import Fields

TOKENS_MAX = 2**20
"""Tokens of one list; the model's context bounds it further."""


def read(fields: Fields, name: str, count_max: int, vocabulary: int) -> list[str | tuple[int, ...]]:
    """One entry for each; all of one kind. Raises `WrongDatatype`, `WrongValue`, `MissingInput`."""
    fields.needed(name)
    given, place = fields.take(name), fields.place(name)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise WrongDatatype(
            f"{place} is {short(given)}, expected a string, strings, tokens or lists of them", param=place
        )
    if given and type(given[0]) is int:
        return [tokens(given, place, vocabulary)]
    if not 1 <= len(given) <= count_max:
        raise fields.wrong(name, f"has {len(given)} entries, expected 1 to {count_max}")
    found: list[str | tuple[int, ...]] = []
    for index, each in enumerate(given):
        if type(each) is not type(given[0]) or not isinstance(each, str | list):
            at = f"{place}[{index}]"
            raise WrongDatatype(f"{at} is {short(each)}, expected strings, or lists of tokens, not both", param=at)
        found.append(each if isinstance(each, str) else tokens(each, f"{place}[{index}]", vocabulary))
    return found


def tokens(given: list[Any], place: str, vocabulary: int) -> tuple[int, ...]:
    """`vocabulary` 0: how many the model knows is not known."""
    if not 1 <= len(given) <= TOKENS_MAX:
        raise WrongValue(f"{place} has {len(given)} tokens, expected 1 to {TOKENS_MAX}", param=place)
    for index, each in enumerate(given):
        if type(each) is not int and not (isinstance(each, float) and abs(each) >= 2**63):
            at = f"{place}[{index}]"
            raise WrongDatatype(f"{at} is {short(each)}, expected a token, a whole number", param=at)
        if not 0 <= each < (vocabulary or 2**31):
            at = f"{place}[{index}]"
            raise WrongValue(
                f"{at} is {short(each)}, the model's tokens are 0 to {(vocabulary or 2**31) - 1}", param=at
            )
    return tuple(given)


def check_length(work: Work, speaks: Speaks | None) -> None:
    """Raises `PromptTooLong` for what cannot fit, whatever its tokens are."""
    if speaks is None or not speaks.context_tokens or not isinstance(work, Generate | Tokenise):
        return
    text = work.prompt if isinstance(work, Generate) else work.text
    count = len(text) + sum(len(each.get("content") or "") for each in work.messages)
    most = speaks.context_tokens * CHARACTERS_A_TOKEN_MAX
    if count > most:
        raise PromptTooLong(
            f"the text has {count} characters; this model reads {speaks.context_tokens} tokens at once,"
            f" and no more than {most} characters are tried"
        )
