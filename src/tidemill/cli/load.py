"""`tidemill load` and `tidemill unload`: models of a running server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from tidemill.cli.common import json_option, print_json
from tidemill.cli.remote import ask, server_options

PATIENCE_S = 3600.0
"""Longer than any load or drain that a service allows by default; ending the wait ends nothing there."""


@click.command("load")
@click.argument("name")
@server_options
@json_option
def load_command(name: str, url: str, key: str | None, as_json: bool) -> None:
    """Load a model on a running server, or look at it again.

    NAME is one that it serves or that lies in its repository. Returns when its versions serve; what was served before
    serves until then, and on where the new version is refused.
    """
    told = ask(url, key, "POST", f"models/{quote(name, safe='')}/load", PATIENCE_S)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{name} serves {_served(told)}")


@click.command("unload")
@click.argument("name")
@server_options
@json_option
def unload_command(name: str, url: str, key: str | None, as_json: bool) -> None:
    """Unload all versions of a model on a running server.

    Its running requests end first. It stays unloaded until `tidemill load` or the next start.
    """
    told = ask(url, key, "POST", f"models/{quote(name, safe='')}/unload", PATIENCE_S)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{name} is unloaded")


def _served(told: dict[str, Any]) -> str:
    serving = [str(each["version"]) for each in told["versions"] if each["state"] == "AVAILABLE"]
    return f"version {', '.join(serving)}" if serving else "no version"
