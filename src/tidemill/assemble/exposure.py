"""Who could reach the service; judged before anything listens."""

from __future__ import annotations

import ipaddress

from tidemill.core.certificates import paths_of
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings


def check_exposure(settings: Settings) -> None:
    """A public address without keys and TLS is refused. Raises `InvalidSetting`."""
    tls = paths_of(settings) is not None
    public = next((each for each in (settings.host, settings.grpc_host) if each and not is_loopback(each)), "")
    if not public or settings.insecure or (tls and not settings.no_auth):
        return
    lacks = ["keys (leave --no-auth out)"] if settings.no_auth else []
    lacks += [] if tls else ["TLS (--tls-cert and --tls-key, or a TLS proxy before --host 127.0.0.1)"]
    raise InvalidSetting(
        f"--host {public} is reachable by others, and the service has no {' and no '.join(lacks)};"
        " add what is missing, or say --insecure"
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
