"""`python -m tidemill.engine.on_vllm.process`: the child that holds vLLM; started by the owner over a socket.

vLLM starts its engine and workers as processes of their own, which begin with this module, too (that is how Python
spawns): each of them ends with the one that started it, so that nothing is left when a parent is killed.
"""

from __future__ import annotations

import os

from tidemill.engine.generate.started import end_with, main

SPAWNED = "__mp_main__"
"""What this module is called in a process that `multiprocessing` spawned."""

if __name__ == SPAWNED:
    end_with(os.getppid())

if __name__ == "__main__":
    # vLLM forks where nothing forbids it; those processes begin with no module.
    os.register_at_fork(after_in_child=lambda: end_with(os.getppid()))

    from tidemill.engine.on_vllm import surroundings

    surroundings.prepare()

    from tidemill.engine.on_vllm import checker, child

    main("tidemill.engine.on_vllm.process", child.run, checker.run)
