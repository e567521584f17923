"""The tokenizer beside a model, read and bounded; on a thread that loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidemill.core.errors import RefusedModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_BYTES_MAX: Final = 64 * 2**20
CHARACTERS_A_TOKEN: Final = 100
"""WordPiece takes no longer word for one that it knows; what lies behind so many for each token would be cut anyway,
and would only be worked on before."""


def load_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`. Raises `RefusedModel`, and `ImportError` where the library is missing."""
    from tokenizers import Tokenizer

    if path.stat().st_size > TOKENIZER_BYTES_MAX:
        raise RefusedModel(f"{path} has more than {TOKENIZER_BYTES_MAX} bytes, which is no tokenizer")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no class of its own
        raise RefusedModel(f"{path} is no tokenizer: {str(error)[:200]}") from error
