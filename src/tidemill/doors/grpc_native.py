"""gRPC on pygrpc-native, whose HTTP/2 runs on threads outside the interpreter (`--grpc-engine native`).

It answers calls of one message natively; what streams goes through a `grpc.aio` server behind it. No TLS, and idle
connections are not closed; the other bounds are kept. Runs on the loop that starts it.
"""

from __future__ import annotations

from typing import Any

import grpc
import pygrpc_native.aio

from tidemill.doors.grpc_call import ServiceMethods
from tidemill.doors.grpc_forward import Handlers, found_in

IDLE = "grpc.max_connection_idle_ms"
"""Refused by it, not ignored."""


class NativeEngine:
    """How a server is made, and told its methods."""

    def server(self, options: list[tuple[str, int]]) -> Any:
        """As `grpc.aio.server`."""
        return pygrpc_native.aio.server(options=[(name, value) for name, value in options if name != IDLE])

    def register(self, server: Any, methods: Handlers, chosen: Handlers) -> None:
        """Offer each of `methods` as `chosen` has it: by name, because what is found by asking is not run natively."""
        for service in methods:
            if not isinstance(service, ServiceMethods):
                raise TypeError(f"{service!r} does not tell its methods")
            named: dict[str, grpc.RpcMethodHandler] = {}
            for path in service.paths:
                found = found_in(chosen, path)
                if found is not None:
                    named[path.rpartition("/")[2]] = found
            server.add_registered_method_handlers(service.service_name(), named)


ENGINE = NativeEngine()
