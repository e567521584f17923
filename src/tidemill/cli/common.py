"""What verbs share: options made from the table of settings, tables, JSON; runs in the command line's process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from tidemill.core import settings as core_settings
from tidemill.core.settings import TYPES, Origin, Settings

F = TypeVar("F", bound=Callable[..., Any])

CLICK_TYPES: dict[type, Any] = {int: click.INT, float: click.FLOAT, str: click.STRING, Path: click.Path(path_type=Path)}


def setting_options(*names: str, **others: Sequence[str]) -> Callable[[F], F]:
    """A flag for each named setting (all when none is named) and `--config`; `others` are further flags of a
    setting."""

    def decorate(function: F) -> F:
        entries = [entry for entry in core_settings.table() if not names or entry.name in names]
        for entry in reversed(entries):
            flags = ("--" + entry.name.replace("_", "-"), *others.get(entry.name, ()))
            about = entry.metadata["about"]
            if TYPES[entry.name] is bool:
                option = click.option(*flags, entry.name, is_flag=True, default=None, help=about)
            else:
                words = entry.metadata["one_of"]
                kind = click.Choice(words) if words else CLICK_TYPES[TYPES[entry.name]]
                shown = "the user's data folder" if TYPES[entry.name] is Path else entry.default
                option = click.option(*flags, entry.name, type=kind, default=None, help=f"{about}  [default: {shown}]")
            function = option(function)
        return click.option(
            "--config", type=click.Path(path_type=Path), default=None, help="Settings file.  [default: ./tidemill.toml]"
        )(function)

    return decorate


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


REFUSED = 3
"""The exit code of a verb that looks, and finds what `serve` would refuse."""


def settled(flags: dict[str, Any], config: Path | None) -> tuple[Settings, list[Origin]]:
    """The settings in force for this command. Raises `InvalidSetting`."""
    return core_settings.current(flags, config)


def print_json(value: Any) -> None:
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    click.echo(orjson.dumps(value, option=options, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """A plain table on stdout, as wide as its content where that is piped."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    piped = not sys.stdout.isatty()
    Console(width=240 if piped else None, highlight=False, markup=False).print(table)


def units(nanos: int) -> str:
    """Nano-units as units, exactly: 1500000 -> 0.0015."""
    whole, part = divmod(abs(nanos), 10**9)
    digits = f"{part:09}".rstrip("0")
    return f"{'-' if nanos < 0 else ''}{whole}{'.' + digits if digits else ''}"


def size(count: int) -> str:
    """Bytes for people: 3163737 -> 3.2 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
