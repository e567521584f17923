"""`tidemill usage`: what was used, and what it costs."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, print_table, setting_options, settled, units
from tidemill.cli.remote import ask, remote_options


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
    """Show calls and money by tenant, key and model.

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
    cells = [
        (row["tenant"], row["key"], f"{row['model']}@{row['version']}", row["calls"], row["rows"], units(row["nanos"]))
        for row in rows
    ]
    calls, rows_sum, nanos = (sum(row[each] for row in rows) for each in ("calls", "rows", "nanos"))
    cells.append(("total", "", "", calls, rows_sum, units(nanos)))
    print_table(("tenant", "key", "model", "calls", "rows", "units"), cells, right=("calls", "rows", "units"))
