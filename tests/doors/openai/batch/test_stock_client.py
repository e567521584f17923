"""Files and batches as OpenAI's own client asks for them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from batching import begun, chat, ended, jsonl, told
from fakes import ADMIN_KEY, KEY
from serving import eventually
from speaking import SpeakingServer
from tidemill.core.contracts import Served
from tidemill.core.errors import Overloaded, RevokedKey
from tidemill.core.request import Caller
from tidemill.doors.openai.batch import desk
from tidemill.doors.openai.batch.job import Job
from tidemill.doors.openai.batch.line import charge_id


def test_every_line_is_answered_as_the_door_answers_it(client: openai.OpenAI) -> None:
    lines = [chat(f"q{index}", f"question {index}") for index in range(20)]
    batch = begun(client, *lines, metadata={"who": "me"})
    assert batch.object == "batch"
    assert batch.metadata == {"who": "me"}
    batch = ended(client, batch.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    assert batch.error_file_id is None
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    found = told(client, batch.output_file_id)
    assert set(found) == {line["custom_id"] for line in lines}
    for line in lines:
        answer = found[line["custom_id"]]
        asked = client.chat.completions.create(**line["body"])
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == asked.choices[0].message.content
        assert answer["response"]["body"]["usage"]["completion_tokens"] == asked.usage.completion_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("/v1/embeddings", {"model": "vectors", "input": ["a", "b"]}, "data"),
        ("/v1/completions", {"model": "mill", "prompt": ["a", "b"], "temperature": 0}, "choices"),
        ("/v1/responses", {"model": "mill", "input": "a", "temperature": 0}, "output"),
    ],
)
def test_other_addresses(client: openai.OpenAI, endpoint: Any, body: Any, field: str) -> None:
    line = {"custom_id": "one", "method": "POST", "url": endpoint, "body": body}
    batch = ended(client, begun(client, line, endpoint=endpoint).id)
    answer = told(client, batch.output_file_id)["one"]["response"]["body"]
    assert answer[field]


def test_a_bad_line_is_an_error_line_and_stops_nothing(client: openai.OpenAI) -> None:
    lines: list[Any] = [
        chat("good"),
        b"{no json",
        b"",
        b"\xff\xfe",
        b'"text"',
        {**chat("stream"), "body": {**chat("x")["body"], "stream": True}},
        chat("hot", temperature=9),
        chat("unknown", colour="red"),
        {**chat("nowhere"), "url": "/v1/embeddings"},
        {**chat("get"), "method": "GET"},
        {"custom_id": "bodiless", "method": "POST", "url": "/v1/chat/completions"},
        {key: value for key, value in chat("x").items() if key != "custom_id"},
        chat("good", "again"),
        chat("nobody", model="nobody"),
        chat("tensors", model="half"),
        chat("long", "x" * 5000),
        chat("huge", "x" * 30_000),
    ]
    batch = ended(client, begun(client, *lines).id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (16, 1, 15)
    assert set(told(client, batch.output_file_id)) == {"good"}
    errors = client.files.content(batch.error_file_id or "").text
    assert len(errors.splitlines()) == 15
    for custom_id, status, param in (
        ("stream", 400, '"param":"stream"'),
        ("hot", 400, '"param":"temperature"'),
        ("unknown", 400, '"param":"colour"'),
        ("nowhere", 400, '"param":"url"'),
        ("get", 400, '"param":"method"'),
        ("bodiless", 400, '"param":"body"'),
        ("nobody", 404, '"param":"model"'),
        ("tensors", 400, '"param":"model"'),
        ("long", 400, '"param":"messages"'),
    ):
        line = next(each for each in errors.splitlines() if f'"custom_id":"{custom_id}"' in each)
        assert f'"status_code":{status}' in line
        assert param in line, line
    assert '"custom_id":"good"' in errors, "the second of a name is refused"


@pytest.mark.parametrize(("content", "code"), [(b"\n \n", "empty_file"), (b"{}\n" * 201, "too_many_lines")])
def test_a_file_that_is_no_batch_fails_it_as_a_whole(client: openai.OpenAI, content: bytes, code: str) -> None:
    batch = ended(client, begun(client, content).id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [each.code for each in batch.errors.data or ()] == [code]
    assert batch.output_file_id is None


def test_files_are_listed_told_and_deleted(client: openai.OpenAI) -> None:
    sent = [client.files.create(file=(f"../../{index}.jsonl", b"{}"), purpose="batch") for index in range(3)]
    assert sent[0].filename == "../../0.jsonl"
    assert sent[0].bytes == 2
    page = client.files.list(limit=2, purpose="batch")
    assert [each.id for each in page.data] == [sent[2].id, sent[1].id]
    assert sent[0].id in [each.id for each in page], "the client pages on by itself"
    assert client.files.retrieve(sent[0].id) == sent[0]
    assert client.files.content(sent[0].id).content == b"{}"
    assert client.files.delete(sent[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(sent[0].id)


def test_batches_are_listed_newest_first(client: openai.OpenAI) -> None:
    made = [begun(client, chat("one")).id for _ in range(3)]
    assert [each.id for each in client.batches.list(limit=2).data] == made[:0:-1]
    assert [each.id for each in client.batches.list(limit=2)][:3] == made[::-1]


def test_a_batch_ends_with_the_key_that_asked_for_it(
    client: openai.OpenAI, mill: SpeakingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ran before is kept; the rest says why it did not run."""

    def check(caller: Caller) -> None:
        if len(mill.generator.asked) > asked:
            raise RevokedKey(f"key {caller.key} was revoked")

    asked = len(mill.generator.asked)
    monkeypatch.setattr(mill.service.identity, "check", check)
    batch = ended(client, begun(client, *(chat(f"r{index}") for index in range(20))).id)
    counts = batch.request_counts
    assert counts is not None
    assert counts.total == 20
    assert 1 <= counts.completed < 20
    assert counts.failed == 20 - counts.completed
    refused = [line["response"] for line in told(client, batch.error_file_id).values()]
    assert {(each["status_code"], each["body"]["error"]["code"]) for each in refused} == {(401, "invalid_api_key")}


def test_another_tenant_finds_nothing(client: openai.OpenAI, mill: SpeakingServer) -> None:
    batch = ended(client, begun(client, chat("one")).id)
    with openai.OpenAI(base_url=f"{mill.url}/v1", api_key=ADMIN_KEY, max_retries=0) as other:
        for asked in (
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.output_file_id or ""),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                asked()
        assert batch.id not in [each.id for each in other.batches.list()]
        assert batch.input_file_id not in [each.id for each in other.files.list()]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-nowhere"}, "input_file_id"),
        ({"endpoint": "/v1/tokenize"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "900d"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_bad_batches_are_refused_by_name(client: openai.OpenAI, change: Any, param: str) -> None:
    sent = client.files.create(file=("a.jsonl", jsonl(chat("one"))), purpose="batch")
    asked = {"input_file_id": sent.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.batches.create(**{**asked, **change})
    assert refused.value.param == param


def test_bad_files_are_refused(client: openai.OpenAI, mill: SpeakingServer) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    assert refused.value.param == "purpose"
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("a.jsonl", b""), purpose="batch")
    with pytest.raises(openai.APIStatusError) as large:
        client.files.create(file=("a.jsonl", b"x" * 200_001), purpose="batch")
    assert large.value.status_code == 413
    refusals = (b"", b"nothing", b"--b\r\n\r\n", b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nabc')
    for body in refusals:
        answer = mill.post("/v1/files", body, **{"content-type": "multipart/form-data; boundary=b"})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert mill.post("/v1/files", b"{}", **{"content-type": "application/json"}).status_code == 400
    assert mill.desk is not None
    assert not list(mill.desk.shelf.folder.glob("*.part")), "what was refused is gone"


def test_lines_wait_while_others_are_asked_and_a_cancel_keeps_what_was_answered(
    client: openai.OpenAI, mill: SpeakingServer
) -> None:
    generator = mill.generator
    generator.held_after = 0
    generator.held = asyncio.Event()
    try:
        begun_here = len(generator.asked)
        batch = begun(client, *[chat(f"q{index}") for index in range(30)])
        eventually(lambda: generator.running == 4, "four lines are at work")
        assert len(generator.asked) - begun_here == 4, "no more than there are places"
        assert client.batches.retrieve(batch.id).status == "in_progress"
        with pytest.raises(openai.ConflictError):
            client.files.delete(batch.input_file_id)
        batch = client.batches.cancel(batch.id)
        assert batch.status == "cancelling"
    finally:
        mill.call(generator.held.set)
        generator.held = None
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 4, "what was begun is paid for, and told"
    assert len(told(client, batch.output_file_id)) == 4
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    assert client.files.delete(batch.input_file_id).deleted


def test_what_did_not_run_in_time_is_given_up_by_name(client: openai.OpenAI, mill: SpeakingServer) -> None:
    generator = mill.generator
    generator.held = asyncio.Event()
    try:
        batch = begun(client, *[chat(f"q{index}") for index in range(6)], window="1s")
        eventually(lambda: (client.batches.retrieve(batch.id).expires_at or 0) < time.time(), "its time is over")
    finally:
        mill.call(generator.held.set)
        generator.held = None
    batch = ended(client, batch.id)
    assert batch.status == "expired"
    errors = told(client, batch.error_file_id)
    assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}
    assert len(told(client, batch.output_file_id)) + len(errors) == 6


def test_each_line_is_charged_once_under_its_own_name(client: openai.OpenAI, mill: SpeakingServer) -> None:
    batch = ended(client, begun(client, *[chat(f"q{index}") for index in range(5)]).id)
    booked = mill.service.ledger.booked
    assert all(charge_id(batch.id, number, 0) in booked for number in range(1, 6))


@pytest.mark.parametrize(("refusals", "completed"), [(1, 1), (2, 0)])
def test_a_line_that_finds_no_place_is_tried_so_often_and_no_more(
    client: openai.OpenAI, mill: SpeakingServer, monkeypatch: pytest.MonkeyPatch, refusals: int, completed: int
) -> None:
    left = [Overloaded("too many")] * refusals

    def limit(caller: Caller, served: Served) -> None:
        if left:
            raise left.pop()

    monkeypatch.setattr(mill.service.gate, "limit", limit)
    batch = ended(client, begun(client, chat("one")).id)
    assert not left
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (completed, 1 - completed)
    for line in told(client, batch.error_file_id).values():
        assert line["response"]["status_code"] == 503
        assert line["response"]["body"]["error"]["code"] == "admission.overloaded"


def test_a_batch_that_fails_in_a_way_that_nobody_foresaw_is_tried_so_often_and_no_more(
    client: openai.OpenAI, mill: SpeakingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    async def broken(self: Job) -> None:
        tries.append(self.row.id)
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(Job, "_answer_all", broken)
    monkeypatch.setattr(desk, "AGAIN_S_MAX", 0.01)
    batch = ended(client, begun(client, chat("one")).id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [each.code for each in batch.errors.data or ()] == ["server_error"]
    assert tries == [batch.id] * 2


def test_a_tenant_has_its_share_and_no_more(client: openai.OpenAI, mill: SpeakingServer) -> None:
    assert mill.desk is not None
    bounds = mill.desk.bounds
    sent = client.files.create(file=("a.jsonl", jsonl(chat("one"))), purpose="batch")
    count = len([each.id for each in client.files.list()])
    try:
        mill.desk.bounds = msgspec.structs.replace(bounds, files_max=count, unfinished_max=0)
        with pytest.raises(openai.RateLimitError) as full:
            client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert full.value.code == "quota_exceeded"
        with pytest.raises(openai.RateLimitError):
            client.batches.create(input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h")
        mill.desk.bounds = msgspec.structs.replace(bounds, files_bytes_max=1)
        with pytest.raises(openai.RateLimitError):
            client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    finally:
        mill.desk.bounds = bounds


def test_over_fronts_it_is_the_same(tmp_path: Path) -> None:
    with (
        SpeakingServer(fronted=True, batches=True, data_dir=tmp_path) as mill,
        openai.OpenAI(base_url=f"{mill.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        lines = [chat(f"q{index}", "word " * 400) for index in range(200)]
        batch = ended(client, begun(client, *lines).id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 200
        assert len(told(client, batch.output_file_id)) == 200
        assert client.files.content(batch.input_file_id).content == jsonl(*lines)
