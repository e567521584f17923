"""V2's statistics in Triton's words, as plain values for both wires; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tidemill.core.contracts import Fleet, Served
from tidemill.core.running import Counts, Timed

NEVER = {"count": 0, "ns": 0}


def told(found: Iterable[Served]) -> dict[str, Any]:
    """`inference_stats` counts requests, `batch_stats` runs of the engine; nothing is answered from a cache."""
    return {"model_stats": [_model(each.name, each.version, each.counts()) for each in found]}


def chosen(fleet: Fleet, name: str, version: int | None) -> list[Served]:
    """The versions that serve: of all models for an empty `name`, all of `name` for no `version`. Raises what
    `Fleet.find` raises."""
    if not name:
        return [each for each in fleet.replicas() if each.state == "AVAILABLE"]
    if version is not None:
        return [fleet.find(name, version)]
    fleet.find(name)
    return [each for each in fleet.versions(name) if each.state == "AVAILABLE"]


def _model(name: str, version: int, counts: Counts) -> dict[str, Any]:
    return {
        "name": name,
        "version": str(version),
        "last_inference": counts.last_ms,
        "inference_count": counts.rows,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": _timed(counts.success),
            "fail": _timed(counts.failed),
            "queue": _timed(counts.queued),
            "compute_input": _timed(counts.input),
            "compute_infer": _timed(counts.infer),
            "compute_output": _timed(counts.output),
            "cache_hit": NEVER,
            "cache_miss": NEVER,
        },
        "batch_stats": [
            {
                "batch_size": each.rows,
                "compute_input": _timed(each.input),
                "compute_infer": _timed(each.infer),
                "compute_output": _timed(each.output),
            }
            for each in counts.batches
        ],
    }


def _timed(timed: Timed) -> dict[str, int]:
    told: dict[str, int] = msgspec.to_builtins(timed)
    return told
