"""One upstream: where it is, what it calls the model, its key; read on a thread that loads, the key on the loop."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from tidemill.core.errors import RefusedModel
from tidemill.core.package import Remote, Upstream
from tidemill.engine.remote.choice import Standing

KEY_BYTES_MAX = 16 * 2**10


class Place:
    """One upstream: where it is, what it calls the model, its key, and how it stands."""

    def __init__(self, number: int, wish: Upstream, remote: Remote, name: str, folder: Path) -> None:
        """Raises `RefusedModel` for a URL, a weight or a key that cannot be."""
        self.url = _url(wish.url)
        self.model = wish.model or remote.model or name
        self.who = f"upstream {number} of model {name!r}"
        own = wish.key_env or wish.key_file
        self._key_env = wish.key_env if own else remote.key_env
        self._key_file = wish.key_file if own else remote.key_file
        self._folder = folder
        self.moved: dict[str, str] = {}
        """Paths at which it had nothing, and where it had that instead."""
        self.standing = Standing(str(number), wish.weight)
        self.key = ""
        self.read_key()

    def read_key(self) -> None:
        """Again, so that a file may be changed while a service runs. Raises `RefusedModel`, never with the key."""
        if self._key_env:
            key, place = os.environ.get(self._key_env, ""), f"the environment's {self._key_env}"
        elif self._key_file:
            path = self._folder / Path(self._key_file).expanduser()
            place = f"the file {path}"
            try:
                with path.open("r", encoding="ascii") as file:
                    key = file.read(KEY_BYTES_MAX)
            except (OSError, ValueError) as error:
                raise RefusedModel(
                    f"{self.who}: its key cannot be read from {place}: {type(error).__name__}"
                ) from error
        else:
            return
        key = key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise RefusedModel(f"{self.who}: its key is expected in {place}, and there is none that could be sent")
        self.key = key


def _url(given: str) -> str:
    """Without the slash and the `/v1` that OpenAI's clients end theirs with. Raises `RefusedModel`, never with what
    may be a secret."""
    try:
        parts = urlsplit(given)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.query or parts.fragment:
        raise RefusedModel(
            "[remote] the url of an upstream is expected to be http(s)://HOST[:PORT][/PATH]; a key goes into key_env or"
            " key_file"
        )
    return given.rstrip("/").removesuffix("/v1")
