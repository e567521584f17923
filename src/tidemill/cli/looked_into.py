"""What `tidemill doctor` looks into: whatever would keep `serve` from working with these settings, or be unsafe."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core import certificates
from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings

if TYPE_CHECKING:
    from tidemill.core.package import ModelPackage
    from tidemill.core.tensor import Signature

NOFILE_WANTED = 4096
DISK_BYTES_WANTED = 100 * 2**20


def problems_of(settings: Settings, load: bool = False) -> list[str]:
    """One line each, in words that say what to do; none when all is well. With `load` each model is opened too."""
    found: list[str] = []
    for look in (*LOOKS, loads) if load else LOOKS:
        try:
            found += look(settings)
        except TidemillError as error:
            found += [error.message] if error.message not in found else []
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
    """As deep as is cheap: files, configuration, the engine's library, steps, and what ensembles ask."""
    from tidemill.cli.ensembles_looked_into import ensembles

    yield from _refused(settings, _reason)
    yield from ensembles(settings)


def loads(settings: Settings) -> Iterator[str]:
    """Each model that the cheap look finds nothing wrong with is opened on its engine, and closed again; what the
    engines say then is held against the ensembles."""
    from tidemill.cli.ensembles_looked_into import ensembles

    known: dict[tuple[str, int], Signature] = {}
    yield from _refused(settings, lambda *each: None if _reason(*each) else _load(*each, known=known), told=False)
    before = set(ensembles(settings))
    yield from (line for line in ensembles(settings, known) if line not in before)


def _refused(
    settings: Settings, why: Callable[[Settings, ModelPackage], str | None], told: bool = True
) -> Iterator[str]:
    """Those for which there is a reason; without `told` those that were refused on disk are passed over."""
    from tidemill import assemble

    for choice in assemble.chosen(settings, assemble.entries(settings, [])):
        reason = choice.reason if told else ""
        if choice.package is not None:
            reason = why(settings, choice.package) or ""
        if reason:
            yield f"model {choice.name} version {choice.version}: {reason}"


def _reason(settings: Settings, package: ModelPackage) -> str | None:
    from tidemill.assemble import fleet_policy
    from tidemill.core import registry
    from tidemill.deploy import stages
    from tidemill.deploy.local import Replica
    from tidemill.deploy.steps import prepare
    from tidemill.deploy.words import KIND, check, generates

    policy = fleet_policy(settings)
    engine = Replica(package, policy).engine_name
    try:
        if generates(engine):
            check(package.config)
            registry.load(KIND + engine)
            return None
        prepare(package, policy.steps.bounds)
        if engine != stages.ENSEMBLE:
            registry.load(f"engine.{engine}")
            return None
        stages.prepare(package, policy.steps.bounds)
    except TidemillError as error:
        return error.message
    return None


def _load(settings: Settings, package: ModelPackage, *, known: dict[tuple[str, int], Signature]) -> str | None:
    from tidemill.cli.try_model import opened

    try:
        engine, _, _ = opened(settings, package, settings.signatures_max)
    except TidemillError as error:
        return error.message
    except TimeoutError:
        return f"it was not loaded within {settings.load_timeout_s:g} s (--load-timeout-s)"
    if engine is not None:
        known[package.name, package.version] = engine.signature
        engine.close()
    return None


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
