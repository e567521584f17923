"""`tidemill keys`: make, list and revoke keys, in the data folder or on a running server."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, print_table, setting_options, settled
from tidemill.cli.remote import ask, remote_options


@click.group("keys")
def keys_command() -> None:
    """Make, list and revoke keys.

    Works on the data folder (--data-dir), also while a server runs on it, or on a remote server (--url).
    """


@keys_command.command("create")
@click.option("--tenant", required=True, help="Who pays.")
@click.option("--label", default="", help="What it is for, to tell keys apart.")
@click.option("--admin", is_flag=True, help="May use the admin API too.")
@remote_options
@setting_options("data_dir")
@json_option
def create(
    tenant: str,
    label: str,
    admin: bool,
    url: str | None,
    key: str | None,
    as_json: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Make a key and print it, for the only time."""
    if url:
        made = ask(url, key, "POST", "keys", json={"tenant": tenant, "label": label, "admin": admin})
    else:
        from tidemill import assemble
        from tidemill.store import database

        settings, _ = settled(flags, config)
        with closing(database.connect(settings.data_dir)) as connection:
            made = assemble.create_key(connection, tenant, label, admin)
    if as_json:
        print_json(made)
        return
    click.echo(made["key"])
    said = f"key {made['id']} of tenant {tenant}; it is not shown again. Send it as `Authorization: Bearer KEY`."
    click.echo(said, err=True)


@keys_command.command("ls")
@remote_options
@setting_options("data_dir")
@json_option
def list_keys(url: str | None, key: str | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """List the keys; never their secrets."""
    if url:
        rows = ask(url, key, "GET", "keys")["keys"]
    else:
        from tidemill import assemble
        from tidemill.store import accounts, database

        settings, _ = settled(flags, config)
        with closing(database.connect(settings.data_dir)) as connection:
            rows = [assemble.told_key(each) for each in accounts.all_keys(connection)]
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            row["id"],
            row["tenant"],
            row["label"],
            "admin" if row["admin"] else "",
            _day(row["created_at"]),
            _day(row["revoked_at"]),
        )
        for row in rows
    ]
    print_table(("key", "tenant", "label", "rights", "created", "revoked"), cells)


@keys_command.command("revoke")
@click.argument("key_id")
@remote_options
@setting_options("data_dir")
@json_option
def revoke(key_id: str, url: str | None, key: str | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Refuse a key from now on; a running server learns of it within a second."""
    if url:
        ask(url, key, "DELETE", f"keys/{key_id}")
    else:
        from tidemill.core.errors import UnknownKey
        from tidemill.store import accounts, database

        settings, _ = settled(flags, config)
        with closing(database.connect(settings.data_dir)) as connection:
            if not accounts.revoke_key(connection, key_id):
                raise UnknownKey(f"there is no key {key_id!r}; `tidemill keys ls` lists them")
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"key {key_id} is revoked")


def _day(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
