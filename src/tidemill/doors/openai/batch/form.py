"""A form with one file, part by part as it comes (RFC 7578): the file goes on, plain fields are kept. Pure."""

from __future__ import annotations

import re
from typing import Final

from tidemill.core.errors import MalformedRequest, MissingInput, UnknownInput
from tidemill.core.text import short
from tidemill.doors.openai.batch.bounds import FIELD_BYTES_MAX, FILE_NAME_CHARACTERS_MAX

HEAD_BYTES_MAX: Final = 8192
FIELDS_MAX: Final = 16
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.I)
_NAME = re.compile(r';\s*(name|filename)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))', re.I)


class Form:
    """Life: `feed` every part of the body, each giving what it holds of the file; then `end`.

    `fields` are the plain ones, `file_name` is what the file is called, "" where it has no name.
    """

    def __init__(self, content_type: str) -> None:
        """Raises `MalformedRequest`."""
        found = _BOUNDARY.search(content_type)
        if not content_type.lower().startswith("multipart/form-data") or found is None:
            raise MalformedRequest(
                f"the content-type is {short(content_type)}, expected multipart/form-data with a boundary:"
                " curl -F purpose=batch -F file=@requests.jsonl"
            )
        self._line = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
        self._held = b"\r\n"
        self._state = "before"
        self._field = ""
        self._value = b""
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None

    def feed(self, part: bytes) -> bytes:
        """Raises `MalformedRequest`, `UnknownInput`."""
        self._held += part
        given: list[bytes] = []
        while self._step(given):
            pass
        return b"".join(given)

    def end(self) -> None:
        """Raises `MalformedRequest` where the form was cut short, `MissingInput` where it held no file."""
        if self._state != "after":
            raise MalformedRequest("the form does not end with its boundary; is it cut short?")
        if self.file_name is None:
            raise MissingInput("file is missing: curl -F purpose=batch -F file=@requests.jsonl", param="file")

    def _step(self, given: list[bytes]) -> bool:
        """Whether there may be more to do with what is held."""
        if self._state in ("before", "file", "field"):
            return self._content(given)
        if self._state == "line":
            return self._after_line()
        if self._state == "head":
            return self._head()
        self._held = b""  # an epilogue is nobody's
        return False

    def _content(self, given: list[bytes]) -> bool:
        content, found, rest = self._held.partition(self._line)
        if not found:
            keep = len(self._line) - 1
            content, rest = self._held[:-keep], self._held[-keep:]
        if self._state == "file":
            given.append(content)
        elif self._state == "field":
            self._value += content
            if len(self._value) > FIELD_BYTES_MAX:
                raise MalformedRequest(f"field {self._field} has more than {FIELD_BYTES_MAX} bytes", param=self._field)
            if found:
                self.fields[self._field] = self._value.decode("utf-8", "replace")
        self._held = rest
        if found:
            self._state = "line"
        return bool(found)

    def _after_line(self) -> bool:
        if len(self._held) < 2:
            return False
        if self._held[:2] == b"--":
            self._state = "after"
        elif self._held[:2] == b"\r\n":
            self._state, self._held = "head", self._held[2:]
        else:
            raise MalformedRequest("a boundary of the form is followed by neither a line nor an end")
        return True

    def _head(self) -> bool:
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if len(head) > HEAD_BYTES_MAX:
            raise MalformedRequest(f"a part of the form has no end of its headers within {HEAD_BYTES_MAX} bytes")
        if not found:
            return False
        names = {}
        for line in head.decode("utf-8", "replace").split("\r\n"):
            word, _, value = line.partition(":")
            if word.strip().lower() == "content-disposition":
                names = {key.lower(): quoted or plain for key, quoted, plain in _NAME.findall(value)}
        self._held = rest
        field = names.get("name", "")
        if field == "file":
            if self.file_name is not None:
                raise MalformedRequest("the form holds more than one file", param="file")
            self._state, self.file_name = "file", names.get("filename", "")[:FILE_NAME_CHARACTERS_MAX]
            return True
        if not field or len(self.fields) >= FIELDS_MAX:
            raise UnknownInput(f"field {short(field)} of the form is not known; known are file, purpose", param=field)
        self._state, self._field, self._value = "field", field[:80], b""
        return True
