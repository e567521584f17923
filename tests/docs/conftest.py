"""Two services over the kit, one open and one that wants keys, in a home of their own, as a reader would have them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving import Server, environment
from tidemill.core.places import cache_dir
from tidemill.kit.install import install
from tidemill.kit.tfclient import install_client

LOCAL = Path(".local/share/tidemill")


@dataclass(frozen=True)
class Reader:
    """Somebody who pastes blocks into a terminal."""

    home: Path
    variables: Mapping[str, str]
    open: Server
    keyed: Server

    def addressed(self, text: str) -> str:
        """`text` with the addresses of the running services. Who sends a key means the one that wants it."""
        server = self.keyed if "TIDEMILL_KEY" in text else self.open
        rest = server.url.removeprefix("http://")
        return text.replace("127.0.0.1:8000", rest).replace("127.0.0.1:8001", server.told["grpc_address"])


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    home = tmp_path_factory.mktemp("home")
    cache = cache_dir()
    data = home / LOCAL
    install(None, data / "models")
    variables = {name: value for name, value in environment().items() if not name.startswith("XDG_")} | {
        "HOME": str(home),
        "TIDEMILL_CACHE_DIR": str(cache),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(install_client()),
        "COLUMNS": "240",
    }
    with (
        Server(data / "models", data, "--no-auth", HOME=str(home)) as open_to_all,
        Server(data / "models", data, HOME=str(home)) as keyed,
    ):
        yield Reader(home, variables, open_to_all, keyed)
