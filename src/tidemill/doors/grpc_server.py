"""The gRPC server with both dialects, health and reflection behind one port; runs on the owner's loop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from tidemill.core import registry
from tidemill.core.certificates import Certificates, Renewal
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings
from tidemill.doors import grpc_health, grpc_reflection
from tidemill.doors.grpc_call import Calls, name_of
from tidemill.doors.grpc_forward import Handlers
from tidemill.doors.kserve import grpc as kserve
from tidemill.doors.listen import bind
from tidemill.doors.tfserving import grpc as tfserving
from tidemill.serve.answer import Service

PING_INTERVAL_MS_MIN = 10_000
PING_STRIKES_MAX = 5
SOCKET_MODE = 0o600
SOCKET_PATH_BYTES_MAX = 107
"""What Linux takes: unix(7)."""


def options(settings: Settings) -> list[tuple[str, int]]:
    """The bounds in gRPC's own words: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    return [
        # A port that is taken is an error, not a second server beside the first.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.body_bytes_max),
        ("grpc.max_send_message_length", -1),
        # Between a soft and a hard limit gRPC refuses by lot; one limit refuses always.
        ("grpc.max_metadata_size", settings.header_bytes_max),
        ("grpc.absolute_max_metadata_size", settings.header_bytes_max),
        ("grpc.max_concurrent_streams", settings.connections_max),
        ("grpc.max_connection_idle_ms", settings.keep_alive_ms),
        ("grpc.keepalive_time_ms", settings.keep_alive_ms),
        ("grpc.keepalive_timeout_ms", settings.body_idle_ms),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
        ("grpc.http2.max_ping_strikes", PING_STRIKES_MAX),
        ("grpc.server_handshake_timeout_ms", settings.header_timeout_ms),
    ]


def credentials(renewal: Renewal) -> grpc.ServerCredentials:
    """TLS that shows each new connection the certificates which are current then."""
    shown = renewal.current

    def configuration(of: Certificates) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(of.key, of.chain)], of.client_ca or None)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Called on a thread of gRPC's for each handshake; None is as before."""
        nonlocal shown
        if renewal.current is shown:
            return None
        shown = renewal.current
        return configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), fetch, require_client_authentication=bool(shown.client_ca)
    )


class GrpcServer:
    """A server that answers, until `stop`."""

    def __init__(self, server: grpc.aio.Server, calls: Calls) -> None:
        self._server = server
        self._calls = calls

    async def stop(self, grace_s: float | None) -> None:
        """Take nothing new, end the streams, let the other calls end within `grace_s`."""
        self._calls.end()
        await self._server.stop(grace_s)


def native_engine(settings: Settings, tls: bool) -> Any:
    """`grpc_native.ENGINE`, or None where it is not asked for. Raises `InvalidSetting`, `MissingPart`."""
    if settings.grpc_engine != "native":
        return None
    if tls:
        raise InvalidSetting("--grpc-engine native speaks no TLS; take aio")
    return registry.load("grpc.native")


def _server(settings: Settings, methods: Handlers, chosen: Handlers, tls: bool) -> Any:
    native = native_engine(settings, tls)
    if native is None:
        server = grpc.aio.server(options=options(settings))
        server.add_generic_rpc_handlers(chosen)
        return server
    server = native.server(options(settings))
    native.register(server, methods, chosen)
    return server


Wrap = Callable[[Handlers], Handlers]


def handlers(calls: Calls) -> Handlers:
    """Every method of every dialect, and what gRPC's own tools ask."""
    dialects = (kserve.handler(calls), *tfserving.handlers(calls))
    services = sorted([*map(name_of, dialects), grpc_health.SERVICE, *grpc_reflection.SERVICES])
    return (*dialects, grpc_health.handler(calls, services), *grpc_reflection.handlers(calls, services))


def _own_socket(settings: Settings) -> Path | None:
    """Where gRPC listens besides, free of what a service before has left there. Raises `InvalidSetting`."""
    if not settings.grpc_socket_path:
        return None
    path = Path(settings.grpc_socket_path).expanduser().absolute()
    told = f"--grpc-socket-path {path}"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise InvalidSetting(f"{told}: a socket's path has {SOCKET_PATH_BYTES_MAX} bytes at most; choose a shorter one")
    if not path.parent.is_dir():
        raise InvalidSetting(f"{told}: there is no folder {path.parent}; make it, or choose another")
    if not path.exists():
        return path
    if not path.is_socket():
        raise InvalidSetting(f"{told}: something else lies there; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return path
        except OSError as error:
            raise InvalidSetting(f"{told}: {error}; choose another path") from error
    raise InvalidSetting(f"{told}: another service listens there; choose another path")


async def start(
    service: Service,
    host: str,
    port: int,
    settings: Settings,
    is_ready: Callable[[], bool] = lambda: True,
    renewal: Renewal | None = None,
    inside: Path | None = None,
    wrap: Wrap = lambda methods: methods,
) -> tuple[GrpcServer, int]:
    """A server that answers, and its port (a free one for 0). The caller stops it.

    `is_ready` tells `ServerReady`; `wrap` may put itself before the methods. With `renewal` the port speaks TLS;
    `inside` is a Unix socket to listen at besides, in the clear, in a folder that nobody else enters; so is the
    setting `grpc_socket_path`, wherever that lies. Raises `InvalidSetting` for a port that cannot be had,
    `MissingPart`.
    """
    if port:
        bind(host, port, "--grpc-port").close()  # in our words, where gRPC would also write its own to stderr
    calls = Calls(service, settings, is_ready)
    methods = handlers(calls)
    server = _server(settings, methods, wrap(methods), renewal is not None)
    own = _own_socket(settings)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = (
            server.add_insecure_port(place) if renewal is None else server.add_secure_port(place, credentials(renewal))
        )
        for path in filter(None, (inside, own)):
            place = f"unix:{path}"
            server.add_insecure_port(place)
    except RuntimeError as error:
        raise InvalidSetting(f"{place} cannot be listened on: {error}; choose another with --grpc-port") from error
    await server.start()
    if own is not None:
        own.chmod(SOCKET_MODE)
    return GrpcServer(server, calls), bound
