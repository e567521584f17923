"""`[vllm]` of a model's `tidemill.toml` in vLLM's own flags, read by vLLM's own parser; runs in the child."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from tidemill.core.errors import RefusedModel
from tidemill.core.text import short

OURS: Final = {
    "model": "it is the folder that is served",
    "served-model-name": "it is the model's name here",
    "trust-remote-code": "a model brings no code into this service",
    "download-dir": "nothing is downloaded",
}
"""Flags that are not the operator's, and why."""
PICKLES: Final = frozenset({"auto", "pt", "npcache", "dummy"})
"""Forms of weights that may be pickles, which run code as they are read, or that are no weights."""
NEAREST_MAX: Final = 3


def words(given: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """A command line of `given`, whose names may be written with `-` or `_`. `known` are the flags that there are, as
    `--flag`. Raises `RefusedModel` for one that there is not, with those that are spelled like it; pure."""
    flags = set(known)
    line: list[str] = []
    for written, value in given.items():
        name = written.removeprefix("--").replace("_", "-")
        if name in OURS:
            raise RefusedModel(f"[vllm] {written}: {OURS[name]}; leave it out")
        flag = f"--{name}"
        if flag not in flags:
            raise RefusedModel(f"[vllm] {written}: vLLM has no such flag{_like(name, flags)}")
        if name == "load-format" and str(value).lower() in PICKLES:
            raise RefusedModel(f"[vllm] {written} = {short(value)}: weights are read from safetensors, never pickles")
        line += _words(flag, value, flags)
    return line


def _words(flag: str, value: Any, flags: set[str]) -> list[str]:
    if isinstance(value, bool):
        off = flag.replace("--", "--no-", 1)
        if off in flags:
            return [flag if value else off]
        return [f"{flag}={str(value).lower()}"]
    if isinstance(value, dict):
        return [f"{flag}={json.dumps(value)}"]
    if isinstance(value, list | tuple):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]  # together, so that a value may begin with `-`


def _like(name: str, flags: set[str]) -> str:
    near = difflib.get_close_matches(f"--{name}", sorted(flags), NEAREST_MAX)
    return f"; like it are {', '.join(each[2:] for each in near)}" if near else ""


def with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given` by vLLM's spelling, with those of `defaults` that it does not name; pure."""
    spelled = {name.removeprefix("--").replace("_", "-"): name for name in given}
    return {**{name: value for name, value in defaults.items() if name not in spelled}, **given}


def arguments(path: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """vLLM's `AsyncEngineArgs` for the folder `path`. Raises `RefusedModel` for what its parser refuses."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise RefusedModel(f"[vllm] {message}")

    parser = AsyncEngineArgs.add_cli_args(Parser(add_help=False, allow_abbrev=False, add_json_tip=False))
    line = words(with_defaults(given, defaults), parser._option_string_actions)
    try:
        read: argparse.Namespace = parser.parse_args(line)
        read.model = path
        return AsyncEngineArgs.from_cli_args(read)
    except (ValueError, TypeError) as error:
        raise RefusedModel(f"[vllm] {error}") from error
