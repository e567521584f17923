"""What lies beside the models that read text: the letters they know, the ways a line may stand; pure, any process."""

from __future__ import annotations

from tidemill.core.errors import FetchFailed


def letters(model: bytes) -> bytes:
    """`letters.txt` of the recogniser, which carries its letters in its metadata: one a line, and the space at the end,
    in the order of its classes behind the blank. Raises `FetchFailed` for another model."""
    from onnx import ModelProto

    for entry in ModelProto.FromString(model).metadata_props:
        if entry.key == "character":
            return f"{entry.value}\n \n".encode()
    raise FetchFailed("the model of letters names none in its metadata; it is another one")


def turns(model: bytes) -> bytes:
    """`labels.txt` of the classifier: how many degrees a line is turned."""
    return b"0\n180\n"
