"""From words to tokens and back, by the tokenizer and the template in the model's folder; runs in the child."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import NotOffered, WrongValue
from tidemill.core.generation import Generate, Tokenise
from tidemill.engine.generate.template import Template


class Text:
    """`tokenizer` is Hugging Face's, as vLLM has loaded it; `vocabulary` are the tokens that the model knows."""

    def __init__(self, tokenizer: Any, vocabulary: int, template_s_max: float) -> None:
        """Raises `RefusedModel` for a template that cannot be read."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        source = getattr(tokenizer, "chat_template", None)
        if isinstance(source, dict):
            source = source.get("default")
        begin, end = tokenizer.bos_token or "", tokenizer.eos_token or ""
        self.template = Template(source, begin, end, template_s_max) if source else None

    def prompt(self, work: Generate) -> list[int]:
        """Raises `WrongValue`, `NotOffered`."""
        if work.messages:
            return self._encoded(self._worded(work.messages, work.tools), special=False)
        return self._known(work.tokens) if work.tokens else self._encoded(work.prompt, special=True)

    def tokens(self, work: Tokenise) -> list[int]:
        """Raises `WrongValue`, `NotOffered`."""
        if work.messages:
            return self._encoded(self._worded(work.messages, work.tools), special=False)
        return self._encoded(work.text, work.special)

    def words(self, tokens: tuple[int, ...]) -> str:
        """Raises `WrongValue`."""
        known = self._known(tokens)
        text: str = self._tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _encoded(self, text: str, special: bool) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        return found

    def _worded(self, messages: tuple[dict[str, Any], ...], tools: tuple[dict[str, Any], ...]) -> str:
        if self.template is None:
            raise NotOffered(
                "this model has no template for chat; give it a prompt (/v1/completions)", param="messages"
            )
        return self.template.word(messages, tools)

    def _known(self, tokens: tuple[int, ...]) -> list[int]:
        strange = next((each for each in tokens if not 0 <= each < self._vocabulary), None)
        if strange is not None:
            raise WrongValue(f"token {strange}: the model knows 0 to {self._vocabulary - 1}", param="prompt")
        return list(tokens)
