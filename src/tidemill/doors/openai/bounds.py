"""How much one request to a language model may ask for; plain values, in the process that reads it."""

from __future__ import annotations

from typing import Final

import msgspec

from tidemill.core.settings import Settings

STOPS_MAX: Final = 4
STOP_CHARACTERS_MAX: Final = 256
MESSAGES_MAX: Final = 2048
PARTS_MAX: Final = 2048
TOOLS_MAX: Final = 128
TOOL_CALLS_MAX: Final = 128
TOOL_TEXT_MAX: Final = 16_384
"""Characters that describe one function."""
NAME_CHARACTERS_MAX: Final = 256
LOGIT_BIASES_MAX: Final = 300
TOP_LOGPROBS_MAX: Final = 20
COMPLETION_LOGPROBS_MAX: Final = 5
METADATA_MAX: Final = 16
TEMPERATURE_MAX: Final = 2.0
TOKENS_MAX: Final = 2**20
"""Of an answer, where a model's context is not known."""
TOP_K_MAX: Final = 2**31 - 1
SEED_MAX: Final = 2**63 - 1
PROMPTS_MAX: Final = 32
"""Prompts of one request for completions; each is a request of its own behind the door."""
INPUTS_MAX: Final = 2048
"""Texts of one request for embeddings."""
CHARACTERS_A_TOKEN_MAX: Final = 64
"""A text with more of them than this for each token of the model's context cannot fit, and is not tokenised: that takes
seconds for megabytes of one letter, and all other answers would wait."""
TEXT_MAX: Final = 2**31
"""Texts are bounded by the body that holds them, and by the model's context."""


class Limits(msgspec.Struct, frozen=True):
    """What the settings say."""

    body_bytes_max: int = 8 * 2**20
    choices_max: int = 16
    timeout_s: float = 600.0
    keep_alive_s: float = 15.0
    lax: bool = False


def limits(settings: Settings) -> Limits:
    return Limits(
        min(settings.words_body_bytes_max, settings.body_bytes_max),
        settings.choices_max,
        settings.words_timeout_ms / 1000,
        settings.sse_keep_alive_ms / 1000,
        settings.openai_lax,
    )
