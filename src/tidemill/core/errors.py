"""The one tree of errors: the caller's fault on one branch, ours on the other; used in every process.

Each leaf has a stable dotted `code`. The core knows neither HTTP nor gRPC: `doors/problems.py` maps a code to both.
A message says what happened with the value, what was expected, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class TidemillError(Exception):
    """Root of the tree. `retry_after_s` is set where waiting helps, `param` where one part of the request is to
    blame: its path there, such as `messages[0].role`."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after_s: float | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.param = param


class CallerError(TidemillError):
    """The caller can mend it; the same call again fails again."""

    code = "request.invalid"


class ServiceError(TidemillError):
    """Ours; the same call may succeed later."""

    code = "internal"


# -- the request as bytes ----------------------------------------------------------------------------------------------


class MalformedRequest(CallerError):
    code = "request.malformed"


class RequestTooLarge(CallerError):
    code = "request.too_large"


class HeadersTooLarge(CallerError):
    code = "request.headers_too_large"


class RequestTooSlow(CallerError):
    code = "request.too_slow"


class UnsupportedEncoding(CallerError):
    code = "request.encoding"


class UnsupportedMedia(CallerError):
    """A `Content-Type` that the model's steps do not read, or none that is known; the message says which are."""

    code = "request.media"


class UnknownRoute(CallerError):
    code = "request.route"


class MethodNotAllowed(CallerError):
    code = "request.method"


class NotOffered(CallerError):
    """A part of a protocol that this service does not offer; the message says which, and what else there is."""

    code = "request.not_offered"


class RequestCancelled(CallerError):
    code = "request.cancelled"


class HandshakeFailed(CallerError):
    """A connection that did not come to TLS in time, or not with a certificate that is taken here. Nobody reads this
    code; it is counted in the metrics."""

    code = "connection.tls"


# -- who asks ----------------------------------------------------------------------------------------------------------


class MissingKey(CallerError):
    code = "key.missing"


class InvalidKey(CallerError):
    code = "key.invalid"


class RevokedKey(CallerError):
    code = "key.revoked"


class Forbidden(CallerError):
    code = "key.forbidden"


class UnknownKey(CallerError):
    code = "key.unknown"


# -- what is asked -----------------------------------------------------------------------------------------------------


class UnknownModel(CallerError):
    code = "model.unknown"


class UnknownFile(CallerError):
    """No file of this id is the caller's."""

    code = "file.unknown"


class UnknownBatch(CallerError):
    """No batch of this id is the caller's."""

    code = "batch.unknown"


class BatchState(CallerError):
    """What was asked cannot be done in the state that a batch is in."""

    code = "batch.state"


class TenantFull(CallerError):
    """The tenant holds as much as it may: files, their bytes, or unfinished batches."""

    code = "tenant.full"


class UnknownVersion(CallerError):
    code = "model.version_unknown"


class UnknownLabel(CallerError):
    """No version of the model bears the label."""

    code = "model.label_unknown"


class MissingInput(CallerError):
    code = "input.missing"


class UnknownInput(CallerError):
    code = "input.unknown"


class WrongDatatype(CallerError):
    code = "input.datatype"


class WrongShape(CallerError):
    code = "input.shape"


class WrongValue(CallerError):
    code = "input.value"


class PromptTooLong(WrongValue):
    """The prompt, or the prompt and the tokens asked for, exceed what the language model reads at once."""

    code = "input.too_long"


class BadMedia(CallerError):
    """What was sent is not what it claims to be, or too large to unpack: a picture, a sound, a table or a text."""

    code = "input.media"


class UnknownOutput(CallerError):
    code = "output.unknown"


class UnknownSignature(CallerError):
    code = "model.signature_unknown"


class RefusedByEngine(CallerError):
    """The tensors fit the signature, and the model still refuses them."""

    code = "engine.refused"


# -- what the operator gave --------------------------------------------------------------------------------------------


class InvalidSetting(CallerError):
    code = "setting.invalid"


class RefusedModel(CallerError):
    """A model that will not be loaded, with the reason."""

    code = "model.refused"


class NotCompiled(RefusedModel):
    """A model that is built ahead of time before it is served; the message names the command."""

    code = "model.not_compiled"


class RefusedExport(CallerError):
    """A model that cannot be compiled, with the reason; nothing was kept."""

    code = "compile.refused"


class MissingPart(CallerError):
    """An optional part of Tidemill that is not installed; the message names the extra that brings it."""

    code = "install.missing"


class InvalidRecipe(CallerError):
    """A compression recipe that cannot be carried out; found before any work."""

    code = "compress.recipe"


class BadData(CallerError):
    """Data for calibration or evaluation that is missing, too little, not finite, or does not fit the model."""

    code = "compress.data"


class RefusedLayer(CallerError):
    """A layer that a solver cannot compress; it is left as it was and listed with the reason."""

    code = "compress.layer"


class MetricFailed(CallerError):
    """A metric that raised, or gave what is no number."""

    code = "compress.metric"


class QualityLost(CallerError):
    """The compressed model keeps less of the metric than was asked for (`--keep`)."""

    code = "compress.quality"


class WorkUnderWay(CallerError):
    """Another process is at the same compression, in the same work folder."""

    code = "compress.busy"


class DiskFull(ServiceError):
    """No room to write; what was there before is as it was."""

    code = "disk.full"


class ServerRefused(ServiceError):
    """What a remote server answered to the command line, in its own words."""

    code = "server.refused"


class FetchFailed(ServiceError):
    code = "kit.fetch_failed"


# -- ours --------------------------------------------------------------------------------------------------------------


class Overloaded(ServiceError):
    code = "admission.overloaded"


class Draining(ServiceError):
    code = "admission.draining"


class ModelNotReady(ServiceError):
    code = "model.not_ready"


class DeadlineExceeded(ServiceError):
    code = "request.deadline"


class EngineFailed(ServiceError):
    code = "engine.failed"


class UpstreamFailed(ServiceError):
    """None of the servers that answer for this model did: unreachable, broken, or silent for too long."""

    code = "upstream.failed"


class LedgerUnavailable(ServiceError):
    code = "ledger.unavailable"


class LinkLost(ServiceError):
    """The process that holds the models, or the way to it, is gone. Another attempt reaches the one that follows it."""

    code = "link.lost"


class FrameTooLarge(CallerError):
    """A request or an answer that is too large to pass between the processes of this service (`frame_bytes_max`)."""

    code = "link.too_large"


def leaves(root: type[TidemillError] = TidemillError) -> list[type[TidemillError]]:
    """Every class of the tree below `root`, itself included."""
    found = [root]
    for child in root.__subclasses__():
        found += leaves(child)
    return found
