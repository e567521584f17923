"""TensorFlow Serving's `predict`, `classify` and `regress` for the hot routes; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Served
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors.head import Head
from tidemill.doors.tfserving import results, translate
from tidemill.doors.tfserving import translate_examples as examples

JSON = (b"content-type", b"application/json")


def classifying(signature: Signature) -> tuple[results.Scoring, tuple[str, ...]]:
    wanted = results.scoring(signature)
    return wanted, wanted.outputs


def regressing(signature: Signature) -> tuple[str, tuple[str, ...]]:
    wanted = results.regressed(signature)
    return wanted, (wanted,)


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
        return examples.question(signature, body, classifying, head.body_bytes_max)

    def answer(
        self, served: Served, asked: examples.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        return [JSON], examples.classes(results.ranking(asked.wanted, served.labels, tensors, asked.count))


class RegressDialect:
    """`POST /v1/models/M[/versions/V|/labels/L]:regress`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> examples.Question:
        return examples.question(signature, body, regressing, head.body_bytes_max)

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
