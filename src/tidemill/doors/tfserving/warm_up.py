"""TensorFlow Serving's file of requests that a model answers before it serves; read by the owner, on a thread.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from tidemill.core import schemas
from tidemill.core.contracts import WarmUpRequest
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.request import Predict
from tidemill.core.tensor import Signature
from tidemill.core.text import short
from tidemill.doors.tfserving import examples, inference_grpc, results
from tidemill.doors.tfserving import translate_grpc as translate
from tidemill.doors.tfserving.spec import DEFAULT_SIGNATURE, chosen, word_for
from tidemill.doors.tfserving.tensor_proto import Message
from tidemill.repository import tf_record

log = logging.getLogger(__name__)

PredictionLog = schemas.message("tensorflow.serving.PredictionLog")

FILE = "assets.extra/tf_serving_warmup_requests"
RECORDS_MAX = 1000
"""TensorFlow Serving's own bound."""
KINDS = "predict_log, predict_streamed_log, classify_log, regress_log and multi_inference_log"


def requests(package: ModelPackage, own: Signature, bytes_max: int, times: int) -> Iterator[WarmUpRequest]:
    """Those of the file beside the model, none where there is no file. `own` is the model's signature, and knows its
    others.

    Those for a signature of the model's file that is not served are passed over. No record may have, or stand for, more
    than `bytes_max`. Raises `RefusedModel` with the record, as TensorFlow Serving refuses the model: who wrote the file
    wants no version to serve that does not answer it.
    """
    path = _file(package)
    if path is None:
        return
    passed: Counter[str] = Counter()
    left_out = {name for name, _ in own.left_out}
    for number, record in enumerate(tf_record.records(path, bytes_max), 1):
        if number > RECORDS_MAX:
            raise RefusedModel(f"{path} has more than {RECORDS_MAX} records, the most that warm a model up; shorten it")
        where = f"{FILE}: record {number}"
        try:
            for name, message, methods in _asked(PredictionLog.FromString(record)):
                if (name or DEFAULT_SIGNATURE) in left_out:
                    passed[name] += 1
                    continue
                signature = chosen(own, name or DEFAULT_SIGNATURE)
                work = _work(signature, message, methods, bytes_max, word_for(signature, own))
                yield WarmUpRequest(where, work, times)
        except DecodeError as error:
            raise RefusedModel(f"{where} is no PredictionLog: {error}") from error
        except TidemillError as error:
            raise RefusedModel(f"{where}: {error.message}") from error
    for name, count in sorted(passed.items()):
        log.info("warm-up requests for signature %r, which is not served: %d", name or DEFAULT_SIGNATURE, count)


def _file(package: ModelPackage) -> Path | None:
    """In the SavedModel itself, or beside another model in its version's folder."""
    try:
        for folder in (package.path, package.place):
            if folder is not None and folder.is_dir() and (folder / FILE).is_file():
                return folder / FILE
    except OSError as error:  # a folder that nobody may look into
        raise RefusedModel(f"{FILE} cannot be looked for: {error}") from error
    return None


def _asked(record: Message) -> Iterator[tuple[str, Message, tuple[str, ...]]]:
    """Signature and request of each that a record holds, with the methods that are asked of examples, () of tensors."""
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        request = record.predict_log.request
        yield request.model_spec.signature_name, request, ()
    elif kind == "predict_streamed_log":
        for request in record.predict_streamed_log.request:
            yield request.model_spec.signature_name, request, ()
    elif kind == "classify_log":
        request = record.classify_log.request
        yield request.model_spec.signature_name, request, (results.CLASSIFY,)
    elif kind == "regress_log":
        request = record.regress_log.request
        yield request.model_spec.signature_name, request, (results.REGRESS,)
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        inference_grpc.check_tasks(request.tasks)
        methods: dict[str, list[str]] = {}
        for task in request.tasks:
            methods.setdefault(task.model_spec.signature_name, []).append(task.method_name)
        for name, asked in methods.items():
            yield name, request, tuple(asked)
    else:
        raise RefusedModel(f"it is {short(kind or 'nothing that is known here')}; {KINDS} warm a model up")


def _work(signature: Signature, message: Message, methods: Iterable[str], bytes_max: int, word: str) -> Predict:
    """`word` is `Predict`'s for the signature. Raises what the door raises for such a request."""
    outputs: dict[str, None] = {}
    for method in methods:
        found = results.scoring(signature).outputs if method == results.CLASSIFY else (results.regressed(signature),)
        outputs |= dict.fromkeys(found)
    if outputs:
        given = inference_grpc.examples(message.input)
        work = Predict(examples.tensors(signature, given, bytes_max), tuple(outputs), signature=word)
    else:
        for name in message.inputs:
            signature.input(name)
        work = translate.predict(message, bytes_max, word)
    signature.check(work.inputs)
    signature.check_outputs(work.outputs)
    return work
