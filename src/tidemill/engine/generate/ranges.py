"""Which values an engine of language models would answer otherwise than it was asked, or fail on; pure, in the child.

What every request keeps is the door's to check.
"""

from __future__ import annotations

import math
from typing import Final

from tidemill.core.errors import PromptTooLong, WrongValue
from tidemill.core.generation import Sampling

STOPS_MAX: Final = 64
STOP_CHARACTERS_MAX: Final = 4096
"""Of all stop strings of one request together."""
CHOICES_MAX: Final = 128


def check(sampling: Sampling, choices: int) -> None:
    """Raises `WrongValue`."""
    if not 1 <= choices <= CHOICES_MAX:
        raise WrongValue(f"n = {choices}: must be between 1 and {CHOICES_MAX}", param="n")
    for name, low, high in (
        ("temperature", 0.0, 100.0),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
        ("repetition_penalty", 0.0, 100.0),
    ):
        value = getattr(sampling, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise WrongValue(f"{name} = {value}: must be between {low:g} and {high:g}", param=name)
    for name in ("top_p", "repetition_penalty"):
        if getattr(sampling, name) == 0:
            raise WrongValue(f"{name} = 0: must be more than 0", param=name)
    if sampling.min_p == 1:
        raise WrongValue("min_p = 1: must be less than 1", param="min_p")
    if sampling.top_k < 0:
        raise WrongValue(f"top_k = {sampling.top_k}: must be at least 0, which takes all", param="top_k")
    if sampling.max_tokens < 0:
        raise WrongValue(f"max_tokens = {sampling.max_tokens}: must be at least 1", param="max_tokens")
    characters = sum(len(each) for each in sampling.stop)
    if len(sampling.stop) > STOPS_MAX or characters > STOP_CHARACTERS_MAX:
        raise WrongValue(
            f"{len(sampling.stop)} stop strings of {characters} characters; at most {STOPS_MAX} of"
            f" {STOP_CHARACTERS_MAX} in all are looked for",
            param="stop",
        )
    if not all(sampling.stop):
        raise WrongValue("an empty stop string would end every answer before it begins", param="stop")


def tokens_max(prompt: int, asked: int, context: int) -> int:
    """How many tokens an answer to `prompt` tokens may have, of which `asked` (0: all there is room for) were asked for
    and `context` are held at once. Raises `WrongValue` for an empty prompt, `PromptTooLong`."""
    if not prompt:
        raise WrongValue("the prompt is empty, and this model has no token that begins one", param="prompt")
    most = context - prompt
    if asked > most or most < 1:
        raise PromptTooLong(
            f"{prompt} tokens of prompt"
            + (f" and {asked} to be generated" if asked else "")
            + f" exceed the {context} that this model holds at once",
            param="max_tokens" if most > 0 else None,
        )
    return asked or most
