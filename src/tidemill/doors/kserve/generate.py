"""V2's generate extension: a text in, a text out, whole or as server-sent events; translation pure, routes on the
owner's loop.

`parameters` are those of `/v1/completions`, which is where their names and ranges are told. Where there are none they
may stand beside `text_input`, as clients of Triton's backends for language models send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from tidemill.core.contracts import Served
from tidemill.core.generation import Delta, Generate
from tidemill.core.request import Usage, Work
from tidemill.core.settings import Settings
from tidemill.doors.head import Scope
from tidemill.doors.openai import sampling
from tidemill.doors.openai.asked import About, Asked, Whole, event
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX, TEXT_MAX, Limits, limits
from tidemill.doors.openai.door import Door, Kind, Read
from tidemill.doors.openai.fields import Fields
from tidemill.doors.openai.rest import speaks_of
from tidemill.doors.way import version_of
from tidemill.serve.answer import Service

VERBS = {"generate": False, "generate_stream": True}
"""Address -> whether it streams."""


@dataclass(frozen=True, slots=True)
class Text:
    """`asked.Asked` of one text."""

    works: Sequence[Work]
    stream: bool
    id: str
    shaped_by: str = ""

    def whole(self, about: About, told: Sequence[Whole]) -> Any:
        text = "".join(delta.text for delta in told[0].deltas)
        return _told(self.id, about, text) | _ended(told[0].deltas[-1].finish, told[0].usage)

    def teller(self, about: About) -> Events:
        return Events(self.id, about)


class Events:
    """`asked.Teller` of one text."""

    def __init__(self, id: str, about: About) -> None:
        self._id = id
        self._about = about
        self._finish = ""

    def begin(self) -> bytes:
        return b""

    def told(self, work: int, delta: Delta) -> bytes:
        self._finish = delta.finish or self._finish
        return event(_told(self._id, self._about, delta.text)) if delta.text else b""

    def end(self, usage: Usage) -> bytes:
        return event(_told(self._id, self._about, "") | _ended(self._finish, usage))


def _told(id: str, about: About, text: str) -> dict[str, Any]:
    served = about.served
    head = {"id": id} if id else {}
    return {**head, "model_name": served.name, "model_version": str(served.version), "text_output": text}


def _ended(finish: str, usage: Usage) -> dict[str, Any]:
    return {
        "finish_reason": finish,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }


def read(fields: Fields, served: Served, stream: bool) -> Text:
    """Raises the errors of `Fields`, each with its `param`."""
    speaks = speaks_of(served)
    fields.needed("text_input")
    prompt = fields.text("text_input", TEXT_MAX) or ""
    if not prompt:
        raise fields.wrong("text_input", "is empty: a model writes after something")
    given = fields.record("parameters")
    flat = fields if given is None else given
    how = sampling.read(flat, speaks, ("max_tokens",))
    flat.refuse("stream", "the address says whether it streams", stream)
    if given is not None:
        given.end()
    id = fields.text("id", NAME_CHARACTERS_MAX) or ""
    fields.end()
    return Text((Generate(prompt=prompt, sampling=how),), stream, id)


def _reads(stream: bool) -> Read:
    def reads(fields: Fields, served: Served, bounds: Limits) -> Asked:
        return read(fields, served, stream)

    return reads


def routes(service: Service, settings: Settings) -> list[Route]:
    bounds = limits(settings)

    def find(scope: Scope, fields: Fields) -> tuple[str, Served]:
        asked = scope["path_params"]
        name: str = asked["name"]
        return name, service.fleet.find(name, version_of(name, asked.get("version")))

    made = []
    for verb, stream in VERBS.items():
        door = Door(service, Kind(_reads(stream), find, "text_input"), bounds, settings.access_log)
        paths = [f"/v2/models/{{name}}{choice}/{verb}" for choice in ("", "/versions/{version}")]
        made += [Route(path, door, methods=["POST"]) for path in paths]
    return made
