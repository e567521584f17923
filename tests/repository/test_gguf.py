"""What a GGUF file says of itself; anything else is refused, whatever its lengths claim."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import RefusedModel
from tidemill.engine.generate import tiny
from tidemill.repository import gguf


def test_facts_are_read(tmp_path: Path) -> None:
    tiny.write(tmp_path / "m.gguf", 100)
    facts = gguf.read(tmp_path / "m.gguf")
    assert facts["general.architecture"] == "llama"
    assert facts["llama.vocab_size"] == 100
    assert facts["llama.rope.freq_base"] == 10_000.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 400))
def test_what_is_cut_or_garbled_is_refused_and_never_breaks(tmp_path: Path, noise: bytes, at: int) -> None:
    path = tmp_path / "m.gguf"
    tiny.write(path, 8)
    whole = path.read_bytes()[:600]
    path.write_bytes(whole[:at] + noise)
    with contextlib.suppress(RefusedModel):
        gguf.read(path)


def test_claims_of_great_length_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**60))
    with pytest.raises(RefusedModel, match="text of"):
        gguf.read(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 1, 1))
    with pytest.raises(RefusedModel, match="version 9"):
        gguf.read(path)
