"""The events of a response that is streamed, in the order that OpenAI's clients follow. Pure."""

from __future__ import annotations

from typing import Any

from tidemill.core.generation import Delta
from tidemill.core.request import Usage
from tidemill.doors.openai import calls
from tidemill.doors.openai.asked import About, named_event
from tidemill.doors.openai.responses import CUT, Output, Response


class Events:
    """`asked.Teller` of a response."""

    def __init__(self, asked: Response, about: About) -> None:
        self._asked = asked
        self._about = about
        self._output = Output(asked.use, about.request_id)
        self._number = 0

    def begin(self) -> bytes:
        created = self._response("response.created", "in_progress")
        return created + self._response("response.in_progress", "in_progress")

    def told(self, work: int, delta: Delta) -> bytes:
        parts = []
        for event, item, fresh in self._output.take(delta):
            if fresh:
                parts += self._added(item)
            if isinstance(event, calls.Words):
                parts.append(self._text("response.output_text.delta", item, delta=event.text, logprobs=[]))
            elif isinstance(event, calls.Arguments):
                kind = "response.function_call_arguments.delta"
                parts.append(self._event(kind, **self._where(item), delta=event.text))
        if delta.finish:
            if not self._output.items:
                parts += self._added(self._output.begin_message())
                self._output.items[0]["status"] = "completed"
            for item in self._output.items:
                parts += self._over(item)
        return b"".join(parts)

    def end(self, usage: Usage) -> bytes:
        kind = "incomplete" if self._output.finish in CUT else "completed"
        return self._response(f"response.{kind}", "", usage)

    def _added(self, item: dict[str, Any]) -> list[bytes]:
        if item["type"] == "function_call":
            shown = {**item, "arguments": "", "status": "in_progress"}
            return [self._event("response.output_item.added", output_index=self._index(item), item=shown)]
        empty = {**item["content"][0], "text": ""}
        shown = {**item, "content": [], "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=self._index(item), item=shown),
            self._text("response.content_part.added", item, part=empty),
        ]

    def _over(self, item: dict[str, Any]) -> list[bytes]:
        if item["type"] == "function_call":
            kind = "response.function_call_arguments.done"
            parts = [self._event(kind, **self._where(item), name=item["name"], arguments=item["arguments"])]
        else:
            part = item["content"][0]
            parts = [
                self._text("response.output_text.done", item, text=part["text"], logprobs=[]),
                self._text("response.content_part.done", item, part=part),
            ]
        return [*parts, self._event("response.output_item.done", output_index=self._index(item), item=item)]

    def _index(self, item: dict[str, Any]) -> int:
        return next(index for index, each in enumerate(self._output.items) if each is item)

    def _where(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": self._index(item)}

    def _text(self, kind: str, item: dict[str, Any], **more: Any) -> bytes:
        return self._event(kind, **self._where(item), content_index=0, **more)

    def _response(self, kind: str, status: str, usage: Usage | None = None) -> bytes:
        return self._event(kind, response=self._asked.told(self._about, self._output, usage, status))

    def _event(self, kind: str, **more: Any) -> bytes:
        made = named_event({"type": kind, "sequence_number": self._number, **more})
        self._number += 1
        return made
