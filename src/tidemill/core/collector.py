"""How often the collector of reference cycles looks, in processes that answer requests."""

from __future__ import annotations

import gc

GC_ALLOCATIONS = 20_000


def quieten_collector() -> None:
    """What is loaded by now stays, and requests leave few cycles behind: look for them less often, among less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 50)
