"""The admin API of a running server, asked by the command line when `--url` names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tidemill.core.errors import ServerRefused

F = TypeVar("F", bound=Callable[..., Any])
TIMEOUT_S = 10.0
URL_HELP = "Ask a running server instead of the data folder."


TRUST = {
    "ca": "CA file (PEM) that signed the server's certificate.  [default: the CAs known to this machine's Python]",
    "client_cert": "Certificate (PEM file) to show, where the server asks for one.",
    "client_key": "Private key (PEM file) of --client-cert.",
}


HERE = "http://127.0.0.1:8000"


def remote_options(
    function: F, otherwise: str | None = None, url_help: str = URL_HELP, whose_key: str = "Admin key"
) -> F:
    """`url` and `key` go to the verb; what TLS wants besides is kept for `trust`. `otherwise` is the URL of a verb that
    always asks a server."""
    for name, about in reversed(TRUST.items()):
        function = click.option(
            "--" + name.replace("_", "-"),
            name,
            envvar=f"TIDEMILL_{name.upper()}",
            type=click.Path(dir_okay=False),
            expose_value=False,
            callback=_keep,
            help=about,
        )(function)
    about = f"The running server to ask.  [default: {otherwise}]" if otherwise else url_help
    url = click.option("--url", envvar="TIDEMILL_URL", default=otherwise, help=about)
    key = click.option("--key", envvar="TIDEMILL_KEY", help=f"{whose_key} for --url; better given as TIDEMILL_KEY.")
    return key(url(function))


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    ctx.meta[f"{__name__}.{parameter.name}"] = value


def trust() -> Any:
    """What httpx is to hold an `https://` against: True, or a context with the files of this command's options.

    Raises `InvalidSetting` for files that cannot be used.
    """
    kept = click.get_current_context().meta
    ca, cert, key = (kept.get(f"{__name__}.{name}") for name in TRUST)
    if not (ca or cert or key):
        return True
    import ssl

    from tidemill.core.errors import InvalidSetting

    try:
        context = ssl.create_default_context(cafile=ca)
        if cert or key:
            context.load_cert_chain(cert or "", key, password=lambda: "")
    except (OSError, ValueError) as error:  # `ssl.SSLError` is an OSError
        named = " ".join(f"--{word} {value}" for word, value in (("ca", ca), ("client-cert", cert)) if value)
        raise InvalidSetting(f"{named or '--client-key without --client-cert'} cannot be used: {error}") from error
    return context


def server_options(function: F) -> F:
    """`remote_options` of a verb that always asks a server: the one of this machine where none is named."""
    return remote_options(function, HERE)


def ask(url: str, key: str | None, method: str, path: str, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Any:
    """The JSON answer of `METHOD url/admin/v1/path`. Raises `ServerRefused`, `InvalidSetting`."""
    import httpx

    verified = trust()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(
            method,
            f"{url.rstrip('/')}/admin/v1/{path}",
            headers=headers,
            timeout=timeout_s,
            verify=verified,
            **arguments,
        )
        told = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServerRefused(f"{url} did not answer as a Tidemill server does: {error}") from error
    if answer.is_error:
        raise ServerRefused(f"{url} refused: {told.get('error', answer.status_code)}")
    return told
