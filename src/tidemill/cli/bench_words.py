"""What `tidemill bench --door openai` asks of its flags, and the sides it drives; runs in the command's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tidemill.core.errors import InvalidSetting

if TYPE_CHECKING:
    from tidemill.client.bench.measure import Side
    from tidemill.client.bench.target import Target

DOOR = "openai"

OF_TENSORS = {"data": None, "zeros": False, "shapes": (), "slo_ms": None}
"""Flags that mean nothing to words, and what they are when they are not given."""
DISTINCT = 512
"""Prompts that are sent in turn: a server that remembers what it read has seen few of them before."""

OPTIONS = [
    click.option("--prompt-tokens", type=click.IntRange(1, 1_000_000), default=128, show_default=True,
                 help="Of a language model's prompt."),
    click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=64, show_default=True,
                 help="Of a language model's answer; as many are asked for, whatever it would say."),
    click.option("--slo-ttft-ms", type=click.FloatRange(min=0, min_open=True),
                 help="Good answers: the first token within so many milliseconds."),
    click.option("--slo-tpot-ms", type=click.FloatRange(min=0, min_open=True),
                 help="Good answers: each further token within so many milliseconds on average."),
]  # fmt: skip


def check(flags: dict[str, Any], doors: list[str]) -> bool:
    """Whether words are asked for. Raises `InvalidSetting` for flags that do not go together."""
    spoken = [door == DOOR for door in doors]
    if any(spoken) and not all(spoken):
        raise InvalidSetting(f"--door {doors[0]} and --against-door {doors[1]}: words and tensors cannot be compared")
    if not spoken[0]:
        for name in ("slo_ttft_ms", "slo_tpot_ms"):
            if flags[name] is not None:
                raise InvalidSetting(f"--{name.replace('_', '-')} is of language models: give --door openai with it")
        return False
    for name, nothing in OF_TENSORS.items():
        if flags[name] != nothing:
            flag = "--" + name.rstrip("s").replace("_", "-").replace("zero", "zeros")
            raise InvalidSetting(
                f"{flag} is of tensors; --door openai takes --prompt-tokens, --max-tokens, --slo-ttft-ms"
            )
    return True


def sides(wheres: list[Target], flags: dict[str, Any]) -> list[Side]:
    """Both sides get the same prompts: tokens of a text as the first server tells them."""
    from tidemill.client.bench import words
    from tidemill.client.bench.measure import Side
    from tidemill.client.bench.meter import Meter
    from tidemill.client.bench.target import tokens_of

    known = tokens_of(wheres[0], words.TEXT)
    slo = words.Slo(flags["slo_ttft_ms"], flags["slo_tpot_ms"])
    made = []
    for where in wheres:
        asked = words.payloads(
            where.model,
            flags["distinct"] or DISTINCT,
            flags["prompt_tokens"],
            flags["max_tokens"],
            flags["seed"],
            known,
        )
        made.append(Side(where, asked, Meter(where), slo=slo))
    return made
