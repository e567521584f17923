"""An HTTP server that echoes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from client.servers import echo, serving


@pytest.fixture
async def echo_url() -> AsyncIterator[str]:
    async with serving(echo) as url:
        yield url
