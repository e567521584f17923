"""Progress bars on stderr, on a terminal only; elsewhere a line when a file or a stage begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Report = Callable[[str, int, int | None], None]
Stage = Callable[[str, int, int, float | None], None]


@contextmanager
def bars() -> Iterator[Report]:
    """Gives a function (label, done, in all or None) that draws; what it counts are bytes, or what the label says."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(label: str, done: int, total: int | None) -> None:
            if label not in seen:
                seen.add(label)
                click.echo(label, err=True)

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


@contextmanager
def stages() -> Iterator[Stage]:
    """Gives a function (stage, done, in all, seconds left or None) that draws one bar, relabelled with each stage."""
    if not sys.stderr.isatty():
        seen: list[str] = []

        def line(label: str, done: int, total: int, left_s: float | None) -> None:
            if seen[-1:] != [label]:
                seen[:] = [label]
                click.echo(label, err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, left="")

        def draw(label: str, done: int, total: int, left_s: float | None) -> None:
            left = "" if left_s is None else f"{left_s:.0f} s left" if left_s < 100 else f"{left_s / 60:.0f} min left"
            progress.update(task, description=label, completed=done, total=total or None, left=left)

        yield draw
