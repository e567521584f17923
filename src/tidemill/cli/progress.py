"""Progress bars on stderr, on a terminal only; elsewhere a line when a file begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Report = Callable[[str, int, int | None], None]


@contextmanager
def bars() -> Iterator[Report]:
    """Gives a function (label, bytes done, bytes in all or None) that draws."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(label: str, done: int, total: int | None) -> None:
            if label not in seen:
                seen.add(label)
                click.echo(f"fetching {label}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        tasks = {}

        def draw(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done, total=total)

        yield draw
