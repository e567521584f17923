"""The one file in a form that a browser or `curl -F` sends (RFC 7578); pure."""

from __future__ import annotations

import mimetypes
import re

from tidemill.core.errors import MalformedRequest

PARTS_MAX = 64
HEAD_BYTES_MAX = 8192
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.I)
_PARAMETER = re.compile(r';\s*(name|filename\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))', re.I)
_MORE_TYPES = {
    ".wav": "audio/wav",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".jpg": "image/jpeg",
}
"""The tables of the machine differ in these."""


def file_of(content_type: str, body: bytes) -> tuple[str, bytes]:
    """The media type and the bytes of the form's only file. Raises `MalformedRequest`."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise MalformedRequest("multipart/form-data names no boundary of 1 to 70 characters in its content-type")
    line = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    parts = (b"\r\n" + body).split(b"\r\n" + line, PARTS_MAX + 2)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        many = f", or it has more than {PARTS_MAX} parts" if len(parts) > PARTS_MAX else ""
        raise MalformedRequest(f"the form does not end with its boundary{many}; is it cut short?")
    files = [each for part in parts[1:-1] if (each := _part(part)) is not None]
    if len(files) != 1:
        raise MalformedRequest(f"the form holds {len(files)} files, expected one: curl -F file=@picture.png")
    return files[0]


def _part(part: bytes) -> tuple[str, bytes] | None:
    """Media type and content of a part that is a file, None for a plain field."""
    head, end, content = part.partition(b"\r\n\r\n")
    if not end or len(head) > HEAD_BYTES_MAX:
        raise MalformedRequest(f"a part of the form has no end of its headers within {HEAD_BYTES_MAX} bytes")
    name = None
    media = ""
    for line in head.decode("utf-8", "replace").split("\r\n"):
        word, _, value = line.partition(":")
        if word.lower() == "content-disposition":
            for key, quoted, plain in _PARAMETER.findall(value):
                if key.lower().startswith("filename"):
                    name = quoted or plain
        elif word.lower() == "content-type":
            media = value.partition(";")[0].strip().lower()
    if name is None:
        return None
    return (media if media not in ("", "application/octet-stream") else type_of(name)), content


def type_of(name: str) -> str:
    """The media type that a file's name tells; `application/octet-stream` where it tells none."""
    ending = "." + name.rpartition(".")[2].lower()
    return _MORE_TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"
