"""TensorFlow Serving's `predict`, `classify` and `regress` for the hot routes; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Served
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors.head import Head
from tidemill.doors.tfserving import results, translate
from tidemill.doors.tfserving import translate_examples as examples

JSON = (b"content-type", b"application/json")


class PredictDialect:
    """`POST /v1/models/M[/versions/V|/labels/L]:predict`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> translate.Question:
        return translate.question(signature, body)

    def answer(
        self, served: Served, asked: translate.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        return [JSON], translate.answer(asked, tensors)


class ClassifyDialect:
    """`POST /v1/models/M[/versions/V|/labels/L]:classify`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> examples.Question:
        wanted = results.scoring(signature)
        return examples.question(signature, body, wanted, wanted.outputs, head.body_bytes_max)

    def answer(
        self, served: Served, asked: examples.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        return [JSON], examples.classes(results.ranking(asked.wanted, served.labels, tensors, asked.count))


class RegressDialect:
    """`POST /v1/models/M[/versions/V|/labels/L]:regress`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> examples.Question:
        wanted = results.regressed(signature)
        return examples.question(signature, body, wanted, (wanted,), head.body_bytes_max)

    def answer(
        self, served: Served, asked: examples.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        return [JSON], examples.values(results.values(asked.wanted, tensors, asked.count))


PREDICT = PredictDialect()
DIALECTS: dict[str, PredictDialect | ClassifyDialect | RegressDialect] = {
    "predict": PREDICT,
    "classify": ClassifyDialect(),
    "regress": RegressDialect(),
}
"""By the verb in the address."""
