"""What a chat and a response come to in the model's own terms. Pure."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Constraint, Generate, Sampling, Speaks
from tidemill.doors.openai import wording
from tidemill.doors.openai.tools import ToolUse


def check_apart(use: ToolUse, wanted: Constraint | None, param: str) -> None:
    """Raises `NotOffered` where the words must be of a form, which `param` names, and may be a call all the same."""
    if wanted is not None and use.how == "auto" and use.calling is None:
        raise NotOffered(
            f"{param} and tools that may be called cannot both hold; set tool_choice to none or required", param=param
        )


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
        constraint=use.constraint() or wanted,
        calling=use.calling,
    )
