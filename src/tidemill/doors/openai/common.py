"""Fields that several requests of this dialect have; pure."""

from __future__ import annotations

from typing import Any

from tidemill.doors.openai.bounds import METADATA_MAX, NAME_CHARACTERS_MAX
from tidemill.doors.openai.fields import Fields

METADATA_CHARACTERS_MAX = 512


def harmless(fields: Fields) -> dict[str, str]:
    """Fields that change nothing here, of the right type all the same; the metadata."""
    for name in ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"):
        fields.text(name, NAME_CHARACTERS_MAX * 4)
    fields.flag("store", False)  # nothing is kept either way
    fields.word("service_tier", ("auto", "default"), "auto")
    given = fields.record("metadata")
    if given is None:
        return {}
    if len(given.values) > METADATA_MAX:
        raise fields.wrong("metadata", f"has {len(given.values)} entries, at most {METADATA_MAX} are taken")
    return {name: given.text(name, METADATA_CHARACTERS_MAX) or "" for name in given.values}


def include_usage(fields: Fields, stream: bool) -> bool:
    given = fields.record("stream_options")
    if given is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", "is for answers that are streamed: stream is not true")
    given.flag("include_obfuscation", False)
    wanted = given.flag("include_usage", False)
    given.end()
    return wanted


def logprobs_of(spelled: str, token: int, logprob: float) -> dict[str, Any]:
    return {"token": spelled, "logprob": logprob, "bytes": list(spelled.encode("utf-8", "replace"))}
