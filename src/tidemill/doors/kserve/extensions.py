"""Which of V2's extensions this service offers, and what it says of the others; pure, used over REST and over gRPC."""

from __future__ import annotations

from tidemill.serve.answer import Service

OFFERED = ("binary_tensor_data", "classification", "generate", "model_configuration", "statistics")

REFUSED = {
    "SystemSharedMemory": "shared memory is not served; send tensors themselves, in bytes",
    "CudaSharedMemory": "CUDA shared memory is not served; send tensors themselves, in bytes",
    "TraceSetting": "traces cannot be set over this protocol; `x-request-id` finds a request in the log",
    "LogSettings": "the log cannot be set over this protocol; start the service with --log-level and --log-format",
}
"""Group of Triton's calls -> what is said to those who ask."""


def extensions(service: Service) -> list[str]:
    """In Triton's words, for the server's metadata: what works in full.

    Of `schedule_policy` there is the time-out alone, and of `parameters` nothing reaches a model.
    """
    return [*OFFERED, *(["model_repository"] if service.models is not None else [])]
