"""Where this user keeps what can be made or fetched again; used in every process."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Folder for what can be made or fetched again: `TIDEMILL_CACHE_DIR`, else the user's cache folder."""
    return Path(os.environ.get("TIDEMILL_CACHE_DIR") or platformdirs.user_cache_dir("tidemill")).expanduser()
