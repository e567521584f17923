from __future__ import annotations

from serving import repository, server

__all__ = ["repository", "server"]
