"""When requests arrive of themselves, whatever the server does: an open loop's schedule. Pure."""

from __future__ import annotations

import numpy as np

from tidemill.core.errors import InvalidSetting

COUNT_MAX = 1_000_000


def poisson(per_second: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start, ascending, all below `seconds`: gaps are exponential, as those of many callers are who
    know nothing of each other.

    At least one arrival, so that a run measures something. Raises `InvalidSetting` for a rate that is none, and for
    more than a million arrivals.
    """
    if not (0 < per_second < float("inf") and 0 < seconds < float("inf")):
        raise InvalidSetting(f"{per_second} a second for {seconds} seconds: both must be more than 0")
    if per_second * seconds > COUNT_MAX:
        raise InvalidSetting(
            f"{per_second} a second for {seconds} seconds: more than {COUNT_MAX} requests; ask for fewer"
        )
    random = np.random.default_rng(seed)
    found: list[float] = []
    last = 0.0
    while last < seconds:
        more = last + np.cumsum(random.exponential(1 / per_second, int(per_second * seconds) + 16))
        found += more[more < seconds].tolist()
        last = float(more[-1])
    return found or [float(random.uniform(0, seconds))]
