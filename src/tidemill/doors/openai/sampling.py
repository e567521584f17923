"""How the next token is chosen, as OpenAI's clients ask for it (and vLLM's, for what OpenAI has no word for); pure."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import WrongDatatype, WrongValue
from tidemill.core.generation import Sampling, Speaks
from tidemill.core.text import short
from tidemill.doors.openai.bounds import (
    LOGIT_BIASES_MAX,
    SEED_MAX,
    STOP_CHARACTERS_MAX,
    STOPS_MAX,
    TEMPERATURE_MAX,
    TOKENS_MAX,
    TOP_K_MAX,
)
from tidemill.doors.openai.fields import Fields


def read(fields: Fields, speaks: Speaks, tokens_names: tuple[str, ...], logprobs: int | None = None) -> Sampling:
    """`tokens_names` are the names by which the most tokens may be asked for, the first that is given counts."""
    usual = Sampling()

    def number(name: str, low: float, high: float, default: float) -> float:
        value = fields.number(name, low, high)
        return default if value is None else value

    return Sampling(
        max_tokens=_max_tokens(fields, speaks, tokens_names),
        temperature=number("temperature", 0.0, TEMPERATURE_MAX, usual.temperature),
        top_p=number("top_p", 0.0, 1.0, usual.top_p),
        top_k=max(0, fields.whole("top_k", -1, TOP_K_MAX) or 0),  # -1 is vLLM's word for all
        min_p=number("min_p", 0.0, 1.0, usual.min_p),
        presence_penalty=number("presence_penalty", -2.0, 2.0, usual.presence_penalty),
        frequency_penalty=number("frequency_penalty", -2.0, 2.0, usual.frequency_penalty),
        repetition_penalty=number("repetition_penalty", 0.01, 10.0, usual.repetition_penalty),
        seed=fields.whole("seed", -SEED_MAX - 1, SEED_MAX),
        stop=stops(fields),
        logit_bias=_logit_bias(fields, speaks),
        logprobs=logprobs,
        ignore_eos=fields.flag("ignore_eos", False),
    )


def _max_tokens(fields: Fields, speaks: Speaks, names: tuple[str, ...]) -> int:
    most = speaks.context_tokens or TOKENS_MAX
    given = [fields.whole(name, 1, most) for name in names]
    return next((each for each in given if each is not None), 0)


def stops(fields: Fields, name: str = "stop") -> tuple[str, ...]:
    """One string or a few. Raises `WrongDatatype`, `WrongValue`."""
    given = fields.take(name)
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given]
    elif not isinstance(given, list):
        place = fields.place(name)
        raise WrongDatatype(f"{place} is {short(given)}, expected a string or a list of strings", param=place)
    if len(given) > STOPS_MAX:
        raise fields.wrong(name, f"has {len(given)} strings, at most {STOPS_MAX} are taken")
    for index, each in enumerate(given):
        place = f"{fields.place(name)}[{index}]"
        if not isinstance(each, str):
            raise WrongDatatype(f"{place} is {short(each)}, expected a string", param=place)
        if not 1 <= len(each) <= STOP_CHARACTERS_MAX:
            raise WrongValue(f"{place} has {len(each)} characters, expected 1 to {STOP_CHARACTERS_MAX}", param=place)
    return tuple(given)


def _logit_bias(fields: Fields, speaks: Speaks) -> tuple[tuple[int, float], ...]:
    given = fields.record("logit_bias")
    if given is None:
        return ()
    if len(given.values) > LOGIT_BIASES_MAX:
        raise fields.wrong("logit_bias", f"has {len(given.values)} tokens, at most {LOGIT_BIASES_MAX} are taken")
    found: list[tuple[int, float]] = []
    for name in given.values:
        value: Any = given.number(name, -100.0, 100.0)
        if not (name.isascii() and name.isdigit() and len(name) < 12) or int(name) >= (speaks.vocabulary or 10**12):
            raise fields.wrong("logit_bias", f"names {short(name)}, which is no token of the model")
        found.append((int(name), value or 0.0))
    return tuple(found)
