"""What tests of batches ask with: lines, and OpenAI's own client."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
from openai.types import Batch

ENDED = ("completed", "failed", "expired", "cancelled")
WAIT_S_MAX = 60.0


def chat(custom_id: str, content: str = "hello", model: str = "mill", **more: Any) -> dict[str, Any]:
    """A line that asks for a chat."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def jsonl(*lines: Any) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


def begun(
    client: openai.OpenAI, *lines: Any, endpoint: Any = "/v1/chat/completions", window: Any = "24h", **more: Any
) -> Batch:
    """A batch of `lines`."""
    sent = client.files.create(file=("asked.jsonl", jsonl(*lines)), purpose="batch")
    return client.batches.create(input_file_id=sent.id, endpoint=endpoint, completion_window=window, **more)


def ended(client: openai.OpenAI, batch_id: str, within_s: float = WAIT_S_MAX) -> Batch:
    """The batch when it has ended."""
    until = time.monotonic() + within_s
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < until, f"not ended: {batch}"
        time.sleep(0.02)
    return batch


def told(client: openai.OpenAI, file_id: str | None) -> dict[str | None, dict[str, Any]]:
    """The lines of a file by their custom_id."""
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines), "a line was answered twice"
    return found
