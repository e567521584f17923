"""What an answer costs: a price a call and a price a token, in whole nano-units; used in every process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

if TYPE_CHECKING:  # settings know prices, and `--help` loads settings without numpy
    from tidemill.core.request import Usage

MILLION: Final = 1_000_000
CALL_NANOS_MAX: Final = 10**18
TOKEN_NANOS_MAX: Final = 10**12
"""A million tokens in and a million out at this price still fit the 64 bits of a booked charge."""

CallNanos = Annotated[int, msgspec.Meta(ge=0, le=CALL_NANOS_MAX)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
TokenNanos = Annotated[int, msgspec.Meta(ge=0, le=TOKEN_NANOS_MAX)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[price]` of `tidemill.toml`; None takes the service's default.

    `cached_token_nanos` is for a token of the prompt that needed no work, because the same prompt began an earlier
    request; where neither the model nor the service says one, it costs what the prompt's others do. `batch_percent` is
    what a line of a batch costs of the same request's price.
    """

    call_nanos: CallNanos | None = None
    prompt_token_nanos: TokenNanos | None = None
    completion_token_nanos: TokenNanos | None = None
    cached_token_nanos: TokenNanos | None = None
    batch_percent: Percent | None = None


class Tariff(msgspec.Struct, frozen=True, gc=False):
    """The prices of one model in force. A charge is made at those of the moment when its request was admitted."""

    call_nanos: int = 0
    prompt_token_nanos: int = 0
    completion_token_nanos: int = 0
    cached_token_nanos: int = 0
    batch_percent: int = 100

    def nanos(self, usage: Usage, batch: bool = False) -> int:
        """What `usage` costs. Of its prompt's tokens the cached ones have their own price. For a line of a `batch` it
        is the share of that, rounded up."""
        nanos = self.call_nanos * usage.calls
        if usage.prompt_tokens or usage.completion_tokens:
            cached = min(usage.cached_tokens, usage.prompt_tokens)
            nanos += (
                self.prompt_token_nanos * (usage.prompt_tokens - cached)
                + self.cached_token_nanos * cached
                + self.completion_token_nanos * usage.completion_tokens
            )
        return -(-nanos * self.batch_percent // 100) if batch else nanos

    @property
    def by_token(self) -> bool:
        """Whether tokens cost something."""
        return any((self.prompt_token_nanos, self.completion_token_nanos, self.cached_token_nanos))

    def words(self, money: Callable[[int], str]) -> str:
        """For a person: `0.001 a call, 0.15 a million prompt tokens`; `money` words nano-units."""
        told = [(self.prompt_token_nanos, "prompt"), (self.completion_token_nanos, "completion")]
        parts = [f"{money(nanos * MILLION)} a million {kind} tokens" for nanos, kind in told if nanos]
        if self.cached_token_nanos != self.prompt_token_nanos:
            parts.append(f"{money(self.cached_token_nanos * MILLION)} a million cached ones")
        if self.call_nanos or not parts:
            parts.insert(0, f"{money(self.call_nanos)} a call")
        return ", ".join(parts)


def tariff(price: Price, service: Price) -> Tariff:
    """The model's `price` where it says something, else the service's, else nothing."""

    def chosen(mine: int | None, service: int | None, otherwise: int = 0) -> int:
        return mine if mine is not None else service if service is not None else otherwise

    prompt = chosen(price.prompt_token_nanos, service.prompt_token_nanos)
    # A model with a prompt price of its own takes that for cached tokens too, rather than the service's for others.
    cached = service.cached_token_nanos if price.prompt_token_nanos is None else None
    return Tariff(
        chosen(price.call_nanos, service.call_nanos),
        prompt,
        chosen(price.completion_token_nanos, service.completion_token_nanos),
        chosen(price.cached_token_nanos, cached, prompt),
        chosen(price.batch_percent, service.batch_percent, 100),
    )
