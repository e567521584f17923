"""What `tidemill doctor` looks into: whatever would keep `serve` from working with these settings, or be unsafe."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from tidemill.core import certificates
from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings

NOFILE_WANTED = 4096
DISK_BYTES_WANTED = 100 * 2**20


def problems_of(settings: Settings) -> list[str]:
    """One line each, in words that say what to do; none when all is well."""
    found: list[str] = []
    for look in LOOKS:
        try:
            found += look(settings)
        except TidemillError as error:
            found.append(error.message)
    return found


def exposure(settings: Settings) -> Iterator[str]:
    from tidemill import assemble

    assemble.check_exposure(settings)
    yield from ()


def ports(settings: Settings) -> Iterator[str]:
    """Each is tried; those that are asked for twice are told even when they are free."""
    from tidemill.doors.listen import bind

    asked = {"--http-port": settings.http_port, "--grpc-port": settings.grpc_port}
    if not settings.no_console:
        asked["--console-port"] = settings.console_port
    asked |= {"--rest_api_port": settings.rest_api_port, "--port": settings.port}
    seen: dict[int, str] = {}
    for flag, port in asked.items():
        if not port and flag in ("--rest_api_port", "--port"):
            continue
        if port and port in seen and {flag, seen[port]} != {"--http-port", "--rest_api_port"}:
            yield f"{flag} and {seen[port]} are both {port}; each port wants a number of its own"
            continue
        seen[port] = flag
        try:
            bind(settings.host, port, flag).close()
        except TidemillError as error:
            yield error.message


def tls(settings: Settings) -> Iterator[str]:
    paths = certificates.paths_of(settings)
    if paths is None:
        return
    found = certificates.read(paths)
    days = (found.not_after - time.time()) / 86_400
    if days * 86_400 < certificates.EXPIRES_SOON_S:
        yield f"the certificate expires in {days:.0f} days, on {certificates.day(found.not_after)}; renew it"
    for name in (paths.key, paths.config):
        if name and Path(name).expanduser().stat().st_mode & stat.S_IROTH:
            yield f"everybody on this machine can read the private key in {name}; chmod o-r"


def data(settings: Settings) -> Iterator[str]:
    """Keys, charges and the disk they lie on."""
    from tidemill.store import accounts, database

    with closing(database.connect(settings.data_dir)) as connection:
        usable = [each for each in accounts.all_keys(connection) if each.revoked_at is None]
    if not settings.no_auth and not usable:
        yield "no key would be accepted: `tidemill keys create --tenant NAME` makes one"
    free = os.statvfs(settings.data_dir)
    if free.f_bavail * free.f_frsize < DISK_BYTES_WANTED:
        yield f"{settings.data_dir} has less than {DISK_BYTES_WANTED // 2**20} MB left; charges could not be written"


def models(settings: Settings) -> Iterator[str]:
    from tidemill import assemble

    for choice in assemble.choose(settings, []):
        if choice.package is None:
            yield f"model {choice.name} version {choice.version}: {choice.reason}"


def traces(settings: Settings) -> Iterator[str]:
    """Whether what `otlp_endpoint` asks for is installed, and an address."""
    if settings.otlp_endpoint:
        from tidemill.core import registry

        registry.load("trace.otlp")
        from tidemill.observe.otlp import endpoint

        endpoint(settings.otlp_endpoint)
    yield from ()


def files(settings: Settings) -> Iterator[str]:
    try:
        import resource
    except ImportError:  # a system without limits
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(settings.connections_max, NOFILE_WANTED):
        yield f"open files are limited to {soft} (ulimit -n); connections_max is {settings.connections_max}"


LOOKS: tuple[Callable[[Settings], Iterator[str]], ...] = (exposure, ports, tls, data, models, traces, files)
