"""Logs as JSON lines or for people, each with the request id where there is one; set up once in each process.

Never logged: payloads, keys, secrets.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar

import orjson

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that the running task answers."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a surrogate pair, or an integer beyond 64 bits: odd spelling, but no line lost
            return json.dumps(line, default=str)


class ForPeople(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        request_id = REQUEST_ID.get()
        parts = [clock, f"{record.levelname.lower():7}", record.getMessage()]
        extra = {key: value for key, value in vars(record).items() if key not in _OWN}
        parts += [f"{key}={value}" for key, value in extra.items()]
        if request_id:
            parts.append(f"request_id={request_id}")
        line = _printable(" ".join(parts))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _printable(text: str) -> str:
    """Control characters spelled out: a value from outside must not end the line, nor steer the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def set_up(form: str, level: str) -> None:
    """Send every log line of this process to stderr. `form` is auto, human or json."""
    handler = logging.StreamHandler(sys.stderr)
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(ForPeople() if human else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(noisy).handlers.clear()
        logging.getLogger(noisy).propagate = noisy != "uvicorn.access"
    logging.getLogger("uvicorn.error").setLevel("WARNING")
