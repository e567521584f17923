"""Finds a user's own function, written MODULE:FUNCTION; runs in the command line's process."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def found(module: str, function: str) -> Any:
    """As `python -m` would find the module: from the folder one is in. Raises whatever the module does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return getattr(importlib.import_module(module), function)
