"""The admin API of a running server, asked by the command line when `--url` names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tidemill.core.errors import ServerRefused

F = TypeVar("F", bound=Callable[..., Any])
TIMEOUT_S = 10.0


def remote_options(function: F) -> F:
    url = click.option("--url", envvar="TIDEMILL_URL", help="Ask a running server instead of the data folder.")
    key = click.option("--key", envvar="TIDEMILL_KEY", help="Admin key for --url; better given as TIDEMILL_KEY.")
    return key(url(function))


def ask(url: str, key: str | None, method: str, path: str, **arguments: Any) -> Any:
    """The JSON answer of `METHOD url/admin/v1/path`. Raises `ServerRefused`."""
    import httpx

    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method, f"{url.rstrip('/')}/admin/v1/{path}", headers=headers, timeout=TIMEOUT_S, **arguments
        )
        told = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServerRefused(f"{url} did not answer as a Tidemill server does: {error}") from error
    if answer.is_error:
        raise ServerRefused(f"{url} refused: {told.get('error', answer.status_code)}")
    return told
