"""Follows `--model_config_file` while the service runs; on the owner's loop, its file is read on threads."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tidemill.core.contracts import Models
from tidemill.core.errors import InvalidSetting, TidemillError
from tidemill.deploy.aside import aside
from tidemill.repository import text_proto, tf_config

log = logging.getLogger(__name__)

READ_S_MAX = 60.0


class ConfigFile:
    """`last` is what is followed by now; the file is followed again when it says something else."""

    def __init__(self, path: Path, models: Models, last: str = "") -> None:
        self._path = path
        self._models = models
        self.last = last

    async def look(self) -> bool:
        """Whether the file says something new, which is then followed. Raises what `Models.reload` raises, and
        `InvalidSetting` for a file that cannot be read or understood: what is served is served on."""
        text = await aside(lambda: text_proto.text_of(self._path), READ_S_MAX, lambda _: None)
        if text == self.last:
            return False
        self.last = text
        await self._models.reload(tf_config.models_of(text, self._path))
        return True

    async def watch(self, every_s: float) -> None:
        """`look` until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if await self.look():
                    log.info("%s is followed", self._path)
            except (TidemillError, TimeoutError) as error:
                said = error.message if isinstance(error, InvalidSetting) else error
                log.error("%s is not followed in all: %s", self._path, said)
