"""Compiles what answers must fit by xgrammar, as vLLM does; runs in the child that checks.

vLLM compiles it again, in its engine. What breaks or hangs the compiler has done so here before.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from tidemill.core.generation import Constraint
from tidemill.engine.generate import compiling
from tidemill.engine.generate.constraint import refused, words
from tidemill.engine.generate.messages import Opening
from tidemill.wire.peer import Bounds

SAYS_CHARACTERS: Final = 400


async def run(link: socket.socket, bounds: Bounds) -> None:
    """Check until the owner is gone."""
    await compiling.run(link, bounds, Compiler)


class Compiler:
    """xgrammar's, with the tokenizer in the model's folder."""

    def __init__(self, opening: Opening) -> None:
        import xgrammar
        from transformers import AutoConfig, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(opening.path, trust_remote_code=False)
        told = AutoConfig.from_pretrained(opening.path, trust_remote_code=False).get_text_config()
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=told.vocab_size)
        self._compiler: Any = xgrammar.GrammarCompiler(info, max_threads=1)
        self._matcher: Any = xgrammar.GrammarMatcher
        self._mask: Any = xgrammar.allocate_token_bitmask(1, told.vocab_size)

    def check(self, constraint: Constraint) -> None:
        """Raises `WrongValue`."""
        compiler = self._compiler
        ((kind, text),) = words(constraint).items()
        try:
            if kind == "json_schema":
                compiled = compiler.compile_json_schema(text, any_whitespace=False)
            elif kind == "regex":
                compiled = compiler.compile_regex(text)
            else:
                compiled = compiler.compile_grammar(text)
            self._matcher(compiled).fill_next_token_bitmask(self._mask)
        except (RuntimeError, ValueError) as error:
            raise refused(f"{error}"[:SAYS_CHARACTERS]) from error
        if not self._mask.any():
            raise refused("nothing fits it")
