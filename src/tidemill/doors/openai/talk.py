"""What a chat and a response come to in the model's own terms. Pure."""

from __future__ import annotations

from typing import Any

from tidemill.core.generation import Constraint, Generate, Sampling, Speaks
from tidemill.doors.openai import wording
from tidemill.doors.openai.tools import ToolUse


def generate(
    messages: tuple[dict[str, Any], ...],
    use: ToolUse,
    speaks: Speaks,
    how: Sampling,
    wanted: Constraint | None,
    choices: int = 1,
) -> Generate:
    """Functions go to the model's template where that takes any, and else into its messages."""
    return Generate(
        messages=messages if speaks.tools else wording.worded(messages, use),
        tools=tuple(tool.told() for tool in use.offered) if speaks.tools else (),
        choices=choices,
        sampling=how,
        constraint=use.constraint() or use.beside(wanted),
        calling=use.calling,
    )
