"""The tokenizer that one child leaves to the next: the same words, wherever it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidemill.core.places import cache_dir
from tidemill.engine.generate.kept import KEPT, tokenizer_of
from tidemill.engine.generate.messages import Opening
from tidemill.kit.install import install

pytestmark = pytest.mark.slow

TEXTS = ["", "The tide turns.", "Größte Flut: 潮水 🌊\r\n\t x", "<|im_start|>user\nhi<|im_end|>", "a\x00b \u202ec"]


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Opening:
    (home,) = install(["smollm2"], cache_dir() / "models-of-tests")
    kept = str(tmp_path_factory.mktemp("kept"))
    return Opening(str(home / "1" / "model.gguf"), "gguf", 1, 0, 1, 256, 1.0, 0, kept=kept)


def told(tokenizer: Any) -> list[object]:
    """All that is asked of one."""
    split = [
        tokenizer.encode([text], add_special_tokens=special).input_ids.data.tolist()
        for text in TEXTS
        for special in (True, False)
    ]
    steering = (tokenizer.get_bos_token(), tokenizer.get_eos_token(), tokenizer.get_eos_token_id())
    return [split, steering, tokenizer.get_vocab(), tokenizer.chat_template, tokenizer.decode([[40, 41, 2, 300]])]


def test_kept_tokenizer_splits_as_that_of_the_file_and_mends_itself(opening: Opening) -> None:
    kept = Path(opening.kept) / KEPT
    first = told(tokenizer_of(opening))
    assert kept.is_dir()
    assert not list(kept.glob("*.gguf"))
    gone = Opening("/nowhere/model.gguf", "gguf", 1, 0, 1, 256, 1.0, 0, kept=opening.kept)
    assert told(tokenizer_of(gone)) == first
    for part in kept.iterdir():
        part.write_bytes(part.read_bytes()[:100])
    assert told(tokenizer_of(opening)) == first
    assert told(tokenizer_of(gone)) == first


def test_without_a_place_to_keep_it_it_comes_from_the_file(opening: Opening) -> None:
    for kept in ("", "/nowhere"):
        other = Opening(opening.path, "gguf", 1, 0, 1, 256, 1.0, 0, kept=kept)
        assert tokenizer_of(other).get_eos_token() == "<|im_end|>"


def test_file_that_is_no_model_is_refused_as_before(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 60)
    with pytest.raises(RuntimeError):
        tokenizer_of(Opening(str(bad), "gguf", 1, 0, 1, 256, 1.0, 0, kept=str(tmp_path)))
    assert not (tmp_path / KEPT).exists()
