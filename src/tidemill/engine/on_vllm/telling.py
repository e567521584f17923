"""What vLLM brought to one request, as deltas; pure, in the child."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidemill.core.errors import EngineFailed
from tidemill.core.generation import Delta, Finish

FINISH: Final[dict[str | None, Finish]] = {None: "", "stop": "stop", "length": "length"}


def deltas(outputs: Any, others: int | None) -> Iterator[Delta]:
    """Of the `CompletionOutput`s of one `RequestOutput`. `others` is `Sampling.logprobs`. Raises `EngineFailed` for a
    choice that vLLM gave up."""
    for output in outputs:
        if output.finish_reason not in FINISH:
            raise EngineFailed(f"vLLM gave the answer up: {output.finish_reason}", retry_after_s=1.0)
        finish = FINISH[output.finish_reason]
        tokens = tuple(output.token_ids)
        if not (tokens or output.text or finish):
            continue
        if others is None or output.logprobs is None:
            yield Delta(output.index, output.text, tokens, finish=finish)
            continue
        places = list(zip(tokens, output.logprobs, strict=True))
        yield Delta(
            output.index,
            output.text,
            tokens,
            tuple(float(place[token].logprob) for token, place in places),
            tuple(place[token].decoded_token or "" for token, place in places),
            tuple(_likeliest(place, others) for _, place in places) if others else (),
            finish,
        )


def _likeliest(place: Mapping[int, Any], count: int) -> tuple[tuple[int, str, float], ...]:
    """The chosen token stands among them only where it is one of them."""
    ranked = sorted((each.rank or 0, token, each) for token, each in place.items())
    return tuple((token, each.decoded_token or "", float(each.logprob)) for _, token, each in ranked[:count])
