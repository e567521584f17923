from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.kit.install import install


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models whose steps read files beside them, really fetched."""
    into = tmp_path_factory.mktemp("kit")
    install(["magika", "basic-pitch", "minilm"], into)
    return into
