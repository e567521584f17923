"""Who could reach the service; judged before anything listens."""

from __future__ import annotations

import ipaddress

from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings


def check_exposure(settings: Settings) -> None:
    """A public address without keys and TLS is refused. Raises `InvalidSetting`."""
    if is_loopback(settings.host) or settings.insecure:
        return
    lack = "without keys (--no-auth) and " if settings.no_auth else ""
    raise InvalidSetting(
        f"--host {settings.host} is reachable by others, {lack}without TLS; put a TLS proxy before --host 127.0.0.1,"
        " or say --insecure"
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
