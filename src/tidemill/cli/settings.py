"""`tidemill settings`: every setting, its value, and where the value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, print_table, setting_options, settled


@click.command("settings")
@setting_options()
@json_option
def settings_command(as_json: bool, config: Path | None, **flags: Any) -> None:
    """Show each setting with its value and origin.

    A flag (--http-port) beats the environment (TIDEMILL_HTTP_PORT), that beats the file (http_port in tidemill.toml),
    that beats the default.
    """
    _, origins = settled(flags, config)
    if as_json:
        print_json([{"name": o.name, "value": o.value, "origin": o.origin, "about": o.about} for o in origins])
        return
    print_table(("setting", "value", "origin", "meaning"), [(o.name, o.value, o.origin, o.about) for o in origins])
