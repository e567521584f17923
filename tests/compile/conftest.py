from __future__ import annotations

from serving import repository

__all__ = ["repository"]
