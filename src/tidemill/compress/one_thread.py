"""Keeps a worker process to one BLAS thread; imports nothing, because the libraries read this when they are loaded."""

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def keep() -> None:
    """As a pool's initializer, before the first task brings numpy in."""
    for name in VARIABLES:
        os.environ[name] = "1"
