"""`Sampling` in openvino-genai's words, and what of it cannot be done there; runs in the child.

Ranges that every engine shares are the door's to check; here are those that this engine would answer otherwise than it
was asked, or fail on.
"""

from __future__ import annotations

import math
import secrets
import sys
from typing import Any, Final

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino_genai

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Constraint, Sampling
from tidemill.engine.generate.constraint import words

STOPS_MAX: Final = 64
STOP_CHARACTERS_MAX: Final = 4096
"""Of all stop strings of one request together."""
CHOICES_MAX: Final = 128
SEEDS: Final = 2**63


def check(sampling: Sampling, choices: int) -> None:
    """Raises `NotOffered`, `WrongValue`."""
    if sampling.logit_bias:
        raise NotOffered("this model's engine knows no logit_bias; leave it out", param="logit_bias")
    if sampling.logprobs:
        raise NotOffered(
            f"this model's engine tells the log probability of the chosen token alone, not of {sampling.logprobs}"
            " others; ask for top_logprobs 0",
            param="top_logprobs",
        )
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


def first_seed(sampling: Sampling) -> int:
    """The seed of the first choice; each further one has the next."""
    return secrets.randbelow(SEEDS) if sampling.seed is None else sampling.seed % SEEDS


def config(default: Any, sampling: Sampling, constraint: Constraint | None, tokens_max: int, seed: int) -> Any:
    """A `GenerationConfig` of one choice. `default` is the model's own, which names the tokens that end an answer.

    What must fit a constraint ends when it does, `ignore_eos` or not. The constraint was compiled before: one that
    cannot be would break the pipeline.
    """
    made = openvino_genai.GenerationConfig()
    made.max_new_tokens = tokens_max
    made.eos_token_id = default.eos_token_id
    made.ignore_eos = sampling.ignore_eos and constraint is None
    if constraint is not None:
        made.structured_output_config = openvino_genai.StructuredOutputConfig(**words(constraint))
    if not made.ignore_eos:
        made.stop_token_ids = default.stop_token_ids
    made.apply_chat_template = False
    made.repetition_penalty = sampling.repetition_penalty
    made.presence_penalty = sampling.presence_penalty
    made.frequency_penalty = sampling.frequency_penalty
    if sampling.logprobs is not None:
        made.logprobs = 1
    if sampling.temperature > 0:
        made.do_sample = True
        made.temperature = sampling.temperature
        made.top_p = sampling.top_p
        made.min_p = sampling.min_p
        made.rng_seed = seed % SEEDS
        if sampling.top_k:
            made.top_k = sampling.top_k
    return made
