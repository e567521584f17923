"""V2's `ModelInfer`, and `ModelStreamInfer`, which is the same for each message of a stream; on the owner's loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import TidemillError
from tidemill.core.request import Predict
from tidemill.core.tensor import Tensors
from tidemill.doors.frames import Frames
from tidemill.doors.grpc_call import Call, Calls, parsed
from tidemill.doors.kserve import classes
from tidemill.doors.kserve import translate_grpc as translate
from tidemill.doors.way import check_tensors, version_of

ModelInferRequest = schemas.message("inference.ModelInferRequest")


def _read(body: bytes) -> tuple[translate.Asked, Predict]:
    message = parsed(ModelInferRequest, body)
    return translate.asked(message), translate.predict(message)


class Infer:
    """Both methods; what stands around a request's numbers is kept, and not read again when it comes again."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._frames = Frames(_read)

    async def infer(self, call: Call) -> bytes:
        return await self._answered(call, translate.response)

    async def streamed(self, call: Call) -> bytes:
        return await self._answered(call, translate.streamed)

    async def _answered(self, call: Call, word: Callable[[str, int, str, Tensors], bytes]) -> bytes:
        frame = self._frames.find(call.body)
        if frame is not None:
            served = self._admitted(call, frame.about)
            worded = partial(word, served.name, served.version, frame.about.id)
            return await self._calls.predict(call, served, frame.work(call.body), worded, frame)
        message = parsed(ModelInferRequest, call.body)
        about = translate.asked(message)
        served = self._admitted(call, about)
        worded = partial(word, served.name, served.version, about.id)
        wanted = translate.wanted_classes(message) if message.outputs else {}
        if wanted:
            classes.check(served.signature, wanted)
            worded = partial(_with_classes, worded, wanted, served)
        work = translate.predict(message)
        if not wanted:
            self._frames.learn(call.body, about, work)
        return await self._calls.predict(call, served, work, worded)

    def _admitted(self, call: Call, about: translate.Asked) -> Served:
        served = self._calls.find(call, about.model, version_of(about.model, about.version))
        self._calls.service.gate.limit(call.caller, served)
        check_tensors(served)
        call.hasten(about.timeout_s)
        return served


def refused(call: Call, error: TidemillError) -> bytes:
    """In a stream a refusal is told in a message, and the stream goes on."""
    return translate.stream_refusal(call.body, error.message)


def _with_classes(word: Callable[[Tensors], bytes], wanted: dict[str, int], served: Served, tensors: Tensors) -> bytes:
    return word(classes.replaced(tensors, wanted, served))
