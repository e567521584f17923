"""One version of one model in this process, from its package to its lane; runs in the owner process."""

from __future__ import annotations

import time
from collections.abc import Collection
from enum import StrEnum

import msgspec

from tidemill.core.contracts import Generator, Relays, TellsBusy, WarmUps
from tidemill.core.generation import Busy, Speaks
from tidemill.core.package import ModelPackage
from tidemill.core.price import Price, tariff
from tidemill.core.running import Counts, Running
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature
from tidemill.deploy.embedder import Embedder
from tidemill.deploy.opening import Opened, no_warm_ups
from tidemill.deploy.signatures import SIGNATURES_MAX
from tidemill.deploy.stages import ENSEMBLE, Ensemble
from tidemill.deploy.steps import StepPolicy, Steps
from tidemill.engine.lane import Lane
from tidemill.observe.stats import ModelStats

ENGINE_OF_FORMAT = {"savedmodel": "openvino", **dict.fromkeys(("gguf", "genai", "huggingface"), "generate")}
"""For all others the engine is called as the format."""
RUNTIME_OF_ENGINE = {"onnx": "onnxruntime", "generate": "openvino-genai"}
"""V2's `platform` is runtime_format, in Triton's words where it has some."""

REMOTE = "remote"
"""The engine of models that other servers answer for."""


class State(StrEnum):
    """TensorFlow Serving's words for the life of a version."""

    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    FAILED = "FAILED"


class FleetPolicy(msgspec.Struct, frozen=True):
    """What a model takes where its own `tidemill.toml` says nothing, and how long loading and leaving may take."""

    engine: str
    threads: int
    instances: int
    rows_max: int
    waiting_max: int
    inline_s_max: float
    call_nanos: int
    delay_ms_max: float = 0.0
    steps: StepPolicy = StepPolicy()
    load_s_max: float = 600.0
    drain_s_max: float = 10.0
    signatures_max: int = SIGNATURES_MAX
    openvino_precision: str = "f32"
    providers: tuple[str, ...] = ()
    settings: Settings = Settings()
    """What engines of language models choose from."""
    warm_ups: WarmUps = no_warm_ups
    prompt_token_nanos: int = 0
    completion_token_nanos: int = 0
    cached_token_nanos: int | None = None
    batch_percent: int | None = None

    def filled(self, package: ModelPackage) -> ModelPackage:
        """`package` with what engines look for in its configuration and it says nothing of."""
        config = package.config
        if config.openvino_precision is None:
            config = msgspec.structs.replace(config, openvino_precision=self.openvino_precision)
        if config.providers is None:
            config = msgspec.structs.replace(config, providers=self.providers)
        return msgspec.structs.replace(package, config=config)

    @property
    def price(self) -> Price:
        return Price(
            self.call_nanos,
            self.prompt_token_nanos,
            self.completion_token_nanos,
            self.cached_token_nanos,
            self.batch_percent,
        )


class Replica:
    """One version of one model in this process; `Served` while AVAILABLE. `reason` says why it FAILED, `singly` why it
    is not `batched`, `warmed` how many requests that it brings it answered before it served. `joined` names the
    signatures whose rows may run together, as `Predict.signature` does.

    Whoever found it may ask it for as long as he holds it: one that was unloaded ends when nobody does any more.
    """

    def __init__(self, package: ModelPackage, policy: FleetPolicy) -> None:
        self.package = package
        self.name = package.name
        self.version = package.version
        self.engine_name = package.config.engine or (
            ENGINE_OF_FORMAT.get(package.format, package.format) if policy.engine == "auto" else policy.engine
        )
        self.waiting_max = package.config.batching.queue_max or policy.waiting_max
        runtime = RUNTIME_OF_ENGINE.get(self.engine_name, self.engine_name)
        self.platform = runtime if runtime in (ENSEMBLE, REMOTE) else f"{runtime}_{package.format}"
        self.tariff = tariff(package.config.price, policy.price)
        self.labels = package.config.labels
        self.rows_max = package.config.batching.max_batch or policy.rows_max
        self.signature = Signature((), ())
        self.batched = False
        self.joined: frozenset[str] = frozenset()
        self.singly = ""
        self.warmed = 0
        self.steps = Steps()
        self.ensemble: Ensemble | None = None
        self.state = State.LOADING
        self.reason = ""
        self.stats = ModelStats()
        self.lane: Lane | None = None
        self.generator: Generator | None = None
        self.embedder: Embedder | None = None
        self._embeds_elsewhere = False

    @property
    def speaks(self) -> Speaks | None:
        return self.generator.speaks if self.generator else None

    @property
    def embeds(self) -> bool:
        return self.embedder is not None or self._embeds_elsewhere

    def ask_there(self, generator: Generator) -> None:
        """Have `generator` answer, and take its word for what the model is."""
        self.generator = generator
        if isinstance(generator, Relays):
            self.adopt(generator.signature, rows_apart=False)
            self._embeds_elsewhere = generator.embeds

    @property
    def busy(self) -> Busy | None:
        """Of a language model that tells."""
        return self.generator.busy() if isinstance(self.generator, TellsBusy) else None

    @property
    def accepts(self) -> tuple[str, ...]:
        return self.steps.accepts

    @property
    def waiting(self) -> int:
        busy = self.busy
        return busy.waiting if busy else self.lane.waiting if self.lane else 0

    def adopt_opened(self, opened: Opened) -> None:
        """As `adopt`, of a model's engines and its further signatures."""
        mixed = [name for name, each in opened.further.items() if not each.rows_apart]
        self.adopt(opened.signature, opened.rows_apart, mixed)
        self.warmed = opened.warmed

    def adopt(self, signature: Signature, rows_apart: bool = True, mixed: Collection[str] = ()) -> None:
        """Take the engine's word for what the model is; `tidemill.toml` has the last one on batching. `mixed` are the
        further signatures whose rows are not answered as they are alone."""
        wish = self.package.config.batching.batched
        self.signature = signature
        self.batched = (signature.batched and rows_apart) if wish is None else wish
        further = {each.name for each in signature.further if (each.batched if wish is None else wish)}
        self.joined = frozenset({""} if self.batched else ()) | further.difference(mixed)
        if self.batched:
            self.singly = ""
        elif wish is False:
            self.singly = "its tidemill.toml says batched = false"
        elif not signature.batched:
            self.singly = "no batch dimension"
        else:
            self.singly = "the rows of a batch are not answered as they are alone"

    def hide(self, text: str) -> None:
        """Leave `text` away from the reasons that callers are told."""
        self.reason = self.reason.replace(text, "")
        said = tuple((name, reason.replace(text, "")) for name, reason in self.signature.left_out)
        if said:
            self.signature = msgspec.structs.replace(self.signature, left_out=said)

    def failed(self, code: str) -> None:
        self.stats.failed(code)

    def running(self) -> Running:
        return Running(
            backend=RUNTIME_OF_ENGINE.get(self.engine_name, self.engine_name),
            rows_max=self.rows_max if self.batched else 0,
            instances=self.lane.instances if self.lane else 1,
            waiting_max=self.waiting_max,
            delay_ms_max=self.lane.policy.delay_s_max * 1000 if self.lane else 0.0,
            preferred=self.lane.policy.preferred if self.lane else (),
        )

    def counts(self) -> Counts:
        return self.stats.counts(time.monotonic(), time.time() * 1000)
