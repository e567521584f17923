"""Where the requests come from that a model answers before it serves; put together for the owner."""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.core.contracts import WarmUpRequest, WarmUps
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature
from tidemill.deploy.opening import no_warm_ups
from tidemill.doors.kserve import warm_up as configured
from tidemill.doors.tfserving import warm_up as recorded


def warm_ups(settings: Settings) -> WarmUps:
    if settings.no_warm_up:
        return no_warm_ups

    def found(package: ModelPackage, signature: Signature) -> Iterator[WarmUpRequest]:
        yield from configured.requests(package, signature, settings.body_bytes_max)
        yield from recorded.requests(package, signature, settings.body_bytes_max, settings.warm_up_times)

    return found
