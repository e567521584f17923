"""KServe V2's `infer` for the hot routes; runs on the owner's loop."""

from __future__ import annotations

from tidemill.core.contracts import Served
from tidemill.core.tensor import Signature, Tensors
from tidemill.doors.head import Head
from tidemill.doors.kserve import classes, translate

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")


class Infer:
    """`POST /v2/models/M[/versions/V]/infer`."""

    def question(self, signature: Signature, body: bytes, head: Head) -> translate.Question:
        return translate.question(signature, body, head.json_length)

    def answer(
        self, served: Served, asked: translate.Question, tensors: Tensors
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        if asked.classes:
            tensors = classes.replaced(tensors, asked.classes, served)
        reply, json_length = translate.answer(served.name, served.version, asked, tensors)
        if json_length < 0:
            return [JSON], reply
        return [BINARY, (b"inference-header-content-length", b"%d" % json_length)], reply


DIALECT = Infer()
