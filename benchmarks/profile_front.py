"""Where the front's time goes: the load of `front.py` on a service under cProfile; prints the costliest functions.

cProfile slows Python and not C, so the shares mislead where the two meet; use it to find what to look at, and
`front.py` to see whether it helped.
"""

from __future__ import annotations

import argparse
import pstats
import sys
import tempfile
from pathlib import Path

import front
import uvloop
from common import kit_models, leave_on_sigterm, tidemill

from tidemill.client import load


def main() -> int:
    leave_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--lines", type=int, default=50)
    parser.add_argument("--sort", default="tottime", choices=("tottime", "cumtime", "ncalls"))
    parser.add_argument("--dialect", default=front.V2, choices=tuple(front.PATHS))
    parser.add_argument("--open", action="store_true", help="without key and charge")
    parser.add_argument("--models", type=Path, help="repository to keep the models in, instead of a new one")
    flags = parser.parse_args()
    extra = ("--no-auth", "--no-charge") if flags.open else ()
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        dump = Path(folder) / "front.prof"
        python = (sys.executable, "-m", "cProfile", "-o", str(dump))
        with (
            kit_models(flags.models, "half") as models,
            tidemill(models, ["half"], *extra, key=not flags.open, python=python) as service,
        ):
            headers = service.headers | front.CONTENT
            url, body = service.url + front.PATHS[flags.dialect], front.BODIES[flags.dialect]
            result = uvloop.run(load.run(url, body, headers, in_flight=flags.in_flight, requests=flags.requests))
        pstats.Stats(str(dump)).strip_dirs().sort_stats(flags.sort).print_stats(flags.lines)
    print(f"{result.ok} of {result.sent} answered well, {result.per_second:.0f} a second under the profiler")
    return 0 if result.ok == flags.requests else 1


if __name__ == "__main__":
    sys.exit(main())
