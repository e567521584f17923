"""`python -m tidemill.engine.generate`: the child that generates; started by the owner over a socket, ends with it."""

from __future__ import annotations

from tidemill.engine.generate import checker, child
from tidemill.engine.generate.generator import MODULE
from tidemill.engine.generate.started import main

if __name__ == "__main__":
    main(MODULE, child.run, checker.run)
