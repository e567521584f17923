"""One pool of solver processes for a method that makes several models; runs in the command line's process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from tidemill.compress import one_thread
from tidemill.compress.workbench import Workbench


@contextmanager
def pooled(bench: Workbench) -> Iterator[Workbench]:
    """`bench`, with an executor that all its runs share: starting processes takes longer than a small layer does. One
    that it was given is used and left open."""
    if bench.settings.executor is not None:
        yield bench
        return
    jobs = bench.settings.jobs or len(os.sched_getaffinity(0))
    # Spawned and not forked: the parent has threads of BLAS and onnxruntime.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=one_thread.keep)
    try:
        yield replace(bench, settings=replace(bench.settings, executor=pool))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
