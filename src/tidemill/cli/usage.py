"""`tidemill usage`: what was used, and what it costs."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, print_table, setting_options, settled, units
from tidemill.cli.remote import ask, remote_options

COUNTED = {
    "calls": "calls",
    "rows": "rows",
    "prompt_tokens": "tokens in",
    "cached_tokens": "cached",
    "completion_tokens": "tokens out",
}
ALWAYS = ("calls", "rows")
"""Tokens are shown where some were used."""


@click.command("usage")
@click.option("--tenant", help="Of this tenant only.")
@click.option("--hours", type=click.FloatRange(min=0), help="Of the last hours only.")
@remote_options
@setting_options("data_dir")
@json_option
def usage_command(
    tenant: str | None,
    hours: float | None,
    url: str | None,
    key: str | None,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Show calls, tokens and money by tenant, key and model.

    Reads the data folder (--data-dir), also while a server runs on it, or asks a remote server (--url).
    """
    since_ms = 0 if hours is None else int((time.time() - hours * 3600) * 1000)
    if url:
        query: dict[str, Any] = {"since_ms": since_ms} | ({"tenant": tenant} if tenant else {})
        rows = ask(url, key, "GET", "usage", params=query)["rows"]
    else:
        import msgspec

        from tidemill.store import database, ledger

        settings, _ = settled(flags, config)
        with closing(database.connect(settings.data_dir)) as connection:
            rows = [msgspec.to_builtins(row) for row in ledger.usage(connection, tenant, since_ms)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("nothing was used yet")
        return
    counted = [each for each in COUNTED if each in ALWAYS or any(_count(row, each) for row in rows)]
    cells = [
        (row["tenant"], row["key"], f"{row['model']}@{row['version']}", *(_count(row, each) for each in counted),
         units(row["nanos"]))
        for row in rows
    ]  # fmt: skip
    sums = (sum(_count(row, each) for row in rows) for each in counted)
    cells.append(("total", "", "", *sums, units(sum(row["nanos"] for row in rows))))
    heads = (*(COUNTED[each] for each in counted), "units")
    print_table(("tenant", "key", "model", *heads), cells, right=heads)


def _count(row: dict[str, Any], name: str) -> int:
    """0 for tokens that an older service does not tell of."""
    return int(row.get(name, 0))
