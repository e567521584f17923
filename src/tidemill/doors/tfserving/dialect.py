"""TensorFlow Serving's `predict` for the hot routes; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Served
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors.head import Head
from tidemill.doors.tfserving import translate

JSON = (b"content-type", b"application/json")


class PredictDialect:
    """`POST /v1/models/M[/versions/V]:predict`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> translate.Question:
        return translate.question(signature, body)

    def answer(
        self, served: Served, asked: translate.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        return [JSON], translate.answer(asked, tensors)


DIALECT = PredictDialect()
