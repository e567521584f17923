"""`Sampling` in openvino-genai's words, and what of it cannot be done there; runs in the child."""

from __future__ import annotations

import secrets
import sys
from typing import Any, Final

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino_genai

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Constraint, Sampling
from tidemill.engine.generate import ranges
from tidemill.engine.generate.constraint import words

SEEDS: Final = 2**63


def check(sampling: Sampling, choices: int) -> None:
    """Raises `NotOffered`, `WrongValue`."""
    if sampling.logit_bias:
        raise NotOffered("this model's engine knows no logit_bias; leave it out", param="logit_bias")
    if sampling.logprobs:
        raise NotOffered(
            f"this model's engine tells the log probability of the chosen token alone, not of {sampling.logprobs}"
            " others; ask for 0",
            param="top_logprobs",
        )
    ranges.check(sampling, choices)


def first_seed(sampling: Sampling) -> int:
    """The seed of the first choice; each further one has the next."""
    return secrets.randbelow(SEEDS) if sampling.seed is None else sampling.seed % SEEDS


def echo(default: Any) -> Any:
    """A `GenerationConfig` that tells the log probability of each token of the prompt, and draws one more."""
    made = openvino_genai.GenerationConfig()
    made.max_new_tokens = 1
    made.eos_token_id = default.eos_token_id
    made.ignore_eos = True
    made.apply_chat_template = False
    made.echo = True
    made.logprobs = 1
    return made


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
