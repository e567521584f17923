"""The protocols by which crafts on one floor meet; `assemble.py` hands the implementations to each other.

Each has one contract suite under `tests/contracts/` that every implementation passes, the fakes included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from tidemill.core.generation import Busy, Speaks
from tidemill.core.package import Indexed, ModelConfig, ModelEntry, ModelPackage, VersionPolicy
from tidemill.core.price import Tariff
from tidemill.core.request import Caller, InferenceRequest, Piece, Predict, Usage
from tidemill.core.running import Counts, Running
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature, Tensors

Clock: TypeAlias = Callable[[], float]
Pieces: TypeAlias = AsyncIterator[Piece]


class Engine(Protocol):
    """A loaded model that answers.

    Life: built by its factory (which raises `RefusedModel` with the reason), `predict` any number of times from one
    thread at a time, `close` once. Owned by a lane.
    """

    signature: Signature

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Answer `inputs`, which fit the signature, with `outputs` (all when empty), C-contiguous and owned by the
        caller.

        Blocks. Raises `RefusedByEngine` for values that the model refuses, `EngineFailed` when it broke.
        """

    def close(self) -> None:
        """Give memory and threads back. `predict` is not called again."""


@runtime_checkable
class Forks(Protocol):
    """What an engine may offer besides: further engines on the model that is loaded already."""

    def fork(self) -> Engine:
        """Another way in, which may run at the same time as this one, and is closed on its own."""


@runtime_checkable
class Signs(Protocol):
    """What an engine may offer besides: engines for the other signatures of the model that is loaded already."""

    def signed(self, name: str) -> Engine:
        """The engine of signature `name`, one of `signature.others`; closed on its own, before this one or after.

        Blocks. Raises `RefusedModel` where that one cannot be run.
        """


EngineFactory: TypeAlias = Callable[[ModelPackage, int], Engine]
"""(package, threads) -> Engine; where the engine `Forks`, each fork runs with `threads` of its own."""


class WarmUpRequest(NamedTuple):
    """A request that a model answers `times` before it serves, held against its signature. `where` is what it is
    called in messages; a model that refuses it, where it `must` not, is not loaded."""

    where: str
    work: Predict
    times: int = 1
    must: bool = True


WarmUps: TypeAlias = Callable[[ModelPackage, Signature], Iterable[WarmUpRequest]]
"""(package, what the engine says of it) -> the requests that the model brings. Raises `RefusedModel` for those that
cannot be read, at their place."""


class Generator(Protocol):
    """A loaded language model: answers many at once, each word by word.

    Life: built and closed by the fleet; belongs to the loop that built it. `speaks` says what it is.
    """

    speaks: Speaks | None

    def run(self, request: InferenceRequest) -> AbstractAsyncContextManager[Pieces]:
        """Answer `Generate` with pieces of `deltas`, `Tokenise` with one piece; the last piece carries `usage`. Leaving
        early stops the work within one step and frees what it held.

        Raises `PromptTooLong` for what cannot fit, `WrongValue` for what cannot be met, `NotOffered` for what this
        engine cannot do, `Overloaded`, `DeadlineExceeded`, `EngineFailed`.
        """

    async def close(self) -> None:
        """End what runs with `ModelNotReady`, give memory and processes back."""


class UpstreamCounts(NamedTuple):
    """Of one server that answers for a model: how often it was asked and failed, and whether it is asked now."""

    requests: int
    failures: int
    up: bool


@runtime_checkable
class Relays(Protocol):
    """What a `Generator` may be besides: one whose answers come from elsewhere, `Predict` and `Embed` among them. Its
    `speaks` is None where it does not speak."""

    signature: Signature
    """Of the tensors that it takes; empty where it takes none."""
    embeds: bool

    def upstreams(self) -> Sequence[UpstreamCounts]:
        """How those who answer do, in their order."""


@runtime_checkable
class TellsBusy(Protocol):
    """What a generator may offer besides: how busy it is."""

    def busy(self) -> Busy: ...


GeneratorFactory: TypeAlias = Callable[[ModelPackage, Settings], Awaitable[Generator]]
"""A language model of this package, loaded. Raises `RefusedModel`; cancelled, it leaves nothing behind."""


class Served(Protocol):
    """One version of a model, as doors and admission see it.

    `state` is TensorFlow Serving's word for where it is in its life (AVAILABLE serves), `reason` why it failed.
    `labels` are the names of the classes that its scores stand for, in their order; () where it names none.
    `signature` is the one that answers those who name none, and knows the others.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def signature(self) -> Signature: ...

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def platform(self) -> str: ...

    @property
    def accepts(self) -> tuple[str, ...]:
        """Media types that the model's steps read, `*/*` for all; empty where it takes tensors alone."""

    @property
    def speaks(self) -> Speaks | None:
        """What it is as a language model; None for one that takes tensors."""

    @property
    def embeds(self) -> bool:
        """Whether it answers `Embed`."""

    @property
    def tariff(self) -> Tariff: ...

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine now."""

    def failed(self, code: str) -> None:
        """Count a request that was refused or failed with `code`."""

    def running(self) -> Running:
        """How it runs."""

    def counts(self) -> Counts:
        """What happened to it until now."""


class Fleet(Protocol):
    """Which replica answers, and the way there and back."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names -> the models that `find` and `versions` give for them, whether they are served or not."""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served:
        """The version asked for by number or by label, or the newest that is ready. Raises `UnknownModel`,
        `UnknownVersion`, `UnknownLabel`, `ModelNotReady`."""

    def replicas(self) -> Sequence[Served]:
        """Every version of every model, by name and version, those that do not serve included."""

    def versions(self, name: str) -> Sequence[Served]:
        """Every version of `name`, oldest first, those that do not serve included. Raises `UnknownModel`."""

    def run(self, request: InferenceRequest) -> AbstractAsyncContextManager[Pieces]:
        """Answer; leaving the context early cancels."""


class Models(Protocol):
    """The models of a running service, as a door that loads and unloads them sees it. Belongs to the loop."""

    def index(self) -> Sequence[Indexed]:
        """Every version that is known: served, refused, or there to be loaded; by name and version."""

    def policy(self, name: str) -> VersionPolicy:
        """Which versions of `name` are wanted. Raises `UnknownModel`."""

    async def load(self, name: str, config: ModelConfig | None = None) -> None:
        """Look at `name` on disk again and serve the versions that its policy asks for; returns when they serve.

        Raises `UnknownModel`, and `RefusedModel` when one was refused; what served before serves on.
        """

    async def unload(self, name: str) -> None:
        """Let the requests of `name` end, then give its engines back. Raises `UnknownModel`."""

    async def reload(self, entries: Sequence[ModelEntry]) -> None:
        """Serve exactly `entries`, as TensorFlow Serving's `HandleReloadConfigRequest` does: new ones are loaded, ones
        that are missing are unloaded, changed ones changed. Returns when they serve. Raises `UnknownModel`,
        `RefusedModel`, `InvalidSetting`; models that are named well are served all the same."""


class Identity(Protocol):
    """Credential in, caller out."""

    def recognise(self, credential: str) -> Caller:
        """Raises `MissingKey` (for ""), `InvalidKey`, `RevokedKey`. Never awaits."""

    def check(self, caller: Caller) -> None:
        """For what goes on without its caller. Raises `RevokedKey` once that one's key is revoked. Never awaits."""


class Gate(Protocol):
    """May this caller ask this now, and when is there a place to run?"""

    def limit(self, caller: Caller, served: Served) -> None:
        """Judged on the headers alone. Raises `Overloaded`, `Draining`."""

    def slot(self, request: InferenceRequest) -> AbstractAsyncContextManager[None]:
        """A place to run, given back on leaving. Raises `Overloaded`."""


class Charge(Protocol):
    """The money of one request, between its hold and its end."""

    async def settle(self, usage: Usage) -> None:
        """Book what was used; returns when it is durable. Raises `LedgerUnavailable`. Settling an id again books
        nothing."""


class Ledger(Protocol):
    """Books one charge for each answered request."""

    def charge(self, caller: Caller, request: InferenceRequest) -> AbstractAsyncContextManager[Charge]:
        """Leaving without `settle` books nothing."""
