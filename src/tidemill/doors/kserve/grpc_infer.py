"""V2's `ModelInfer`, and `ModelStreamInfer`, which is the same for each message of a stream; on the owner's loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tidemill.core import schemas
from tidemill.core.contracts import Served
from tidemill.core.errors import TidemillError
from tidemill.core.tensor import Tensors
from tidemill.doors.grpc_call import Call, Calls, parsed
from tidemill.doors.kserve import classes
from tidemill.doors.kserve import translate_grpc as translate
from tidemill.doors.way import check_tensors, version_of

ModelInferRequest = schemas.message("inference.ModelInferRequest")


async def infer(calls: Calls, call: Call) -> bytes:
    return await _answered(calls, call, translate.response)


async def streamed(calls: Calls, call: Call) -> bytes:
    return await _answered(calls, call, translate.streamed)


def refused(call: Call, error: TidemillError) -> bytes:
    """In a stream a refusal is told in a message, and the stream goes on."""
    return translate.stream_refusal(call.body, error.message)


async def _answered(calls: Calls, call: Call, word: Callable[[str, int, str, Tensors], bytes]) -> bytes:
    message = parsed(ModelInferRequest, call.body)
    served = calls.find(call, message.model_name, version_of(message.model_name, message.model_version))
    calls.service.gate.limit(call.caller, served)
    check_tensors(served)
    call.hasten(translate.timeout_s(message))
    worded: Callable[[Tensors], bytes] = partial(word, served.name, served.version, message.id)
    if message.outputs and (wanted := translate.wanted_classes(message)):
        classes.check(served.signature, wanted)
        worded = partial(_with_classes, worded, wanted, served)
    return await calls.predict(call, served, translate.predict(message), worded)


def _with_classes(word: Callable[[Tensors], bytes], wanted: dict[str, int], served: Served, tensors: Tensors) -> bytes:
    return word(classes.replaced(tensors, wanted, served))
