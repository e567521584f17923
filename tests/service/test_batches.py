"""Batches of a real service outlive its processes: whatever ends it, each line is answered once, and paid for once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pytest

from batching import begun, chat, ended, told
from fakes import KEY
from serving import Server, eventually
from speaking import SpeakingServer
from tidemill.doors.openai.batch.line import charge_id, line_id
from tidemill.store import database, ledger

pytestmark = pytest.mark.slow
LINES = 40


@pytest.fixture(scope="module")
def upstream() -> Iterator[SpeakingServer]:
    """What answers, and can be held; it outlives the service before it."""
    with SpeakingServer() as running:
        yield running


@pytest.fixture
def models(tmp_path: Path, upstream: SpeakingServer) -> Path:
    place = tmp_path / "models" / "mill" / "1"
    place.mkdir(parents=True)
    (place / "tidemill.toml").write_text(
        'engine = "remote"\n[remote]\nprotocol = "openai"\nmodel = "mill"\nkey_env = "MILL_KEY"\n'
        f'[[remote.upstream]]\nurl = "{upstream.url}/v1"\n[price]\ncall_nanos = 7\nbatch_percent = 50\n'
    )
    return tmp_path / "models"


def served(models: Path, folder: Path, *flags: str) -> Server:
    return Server(models, folder / "data", "--no-auth", "--drain-ms", "300", *flags, MILL_KEY=KEY)


def asking(server: Server) -> closing[openai.OpenAI]:
    return closing(openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0))


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_service_that_ends_in_the_middle_goes_on_where_it_was(
    models: Path, tmp_path: Path, upstream: SpeakingServer, how: str
) -> None:
    """Twice: some lines are answered, some are with the upstream, most have not begun."""
    generator = upstream.generator
    generator.held_after = 0
    lines = [chat(f"q{index}", f"question {index}") for index in range(LINES)]
    with served(models, tmp_path) as server, asking(server) as client:
        generator.held = None
        batch = begun(client, *lines)
        eventually(lambda: _completed(client, batch.id) >= 3, "some are answered")
        generator.held = asyncio.Event()
        eventually(lambda: generator.running > 0, "some are at work")
        before = set(_answered(tmp_path, batch.id))
        getattr(server, how)()
    assert len(before) >= 3
    generator.held = None
    with served(models, tmp_path) as server, asking(server) as client:
        eventually(lambda: _completed(client, batch.id) > len(before), "it goes on")
        getattr(server, how)()
    with served(models, tmp_path) as server, asking(server) as client:
        batch = ended(client, batch.id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (LINES, LINES)
        (row,) = server.client.get("/admin/v1/batches").json()["batches"]
        assert (row["id"], row["status"], row["completed"]) == (batch.id, "completed", LINES)
        found = told(client, batch.output_file_id)
        assert set(found) == {line["custom_id"] for line in lines}
        assert before <= {line["id"] for line in found.values()}, "what was answered is not answered again"
        assert server.metrics()['tidemill_job_lines_total{outcome="completed"}'] > 0
        assert server.metrics()['tidemill_jobs{state="in_progress"}'] == 0
    assert _booked(tmp_path, batch.id) == [4] * LINES, "half of the price, rounded up"


def test_what_is_uploaded_and_listed_is_there_after_a_kill(models: Path, tmp_path: Path) -> None:
    with served(models, tmp_path) as server, asking(server) as client:
        batch = ended(client, begun(client, chat("one")).id)
        content = client.files.content(batch.output_file_id or "").content
        server.kill()
    left = tmp_path / "data" / "files" / "file-left.part"
    left.write_bytes(b"an upload that was cut off")
    with served(models, tmp_path, "--fronts", "1") as server, asking(server) as client:
        assert client.files.content(batch.output_file_id or "").content == content
        assert client.batches.retrieve(batch.id) == batch
        assert not left.exists()
        batch = ended(client, begun(client, chat("two")).id)
        assert set(told(client, batch.output_file_id)) == {"two"}


def test_one_process_at_a_time_runs_the_batches_of_a_folder(models: Path, tmp_path: Path) -> None:
    with served(models, tmp_path) as first, served(models, tmp_path) as second, asking(second) as client:
        sent = client.files.create(file=("a.jsonl", json.dumps(chat("one")).encode()), purpose="batch")
        wanted = {"input_file_id": sent.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        refused = second.client.post("/v1/batches", json=wanted)
        assert refused.status_code == 503, refused.text
        assert "another process" in refused.text
        with asking(first) as other:
            assert ended(other, other.batches.create(**wanted).id).status == "completed"  # type: ignore[arg-type]
        first.stop()
        eventually(lambda: second.client.post("/v1/batches", json=wanted).status_code == 200, "it takes over")
        assert ended(client, client.batches.list().data[0].id).status == "completed"


def _completed(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return 0 if counts is None else counts.completed


def _answered(folder: Path, batch_id: str) -> list[str]:
    """The ids of the lines that are durable on disk."""
    path = folder / "data" / "files" / f"file-{batch_id.removeprefix('batch_')}-output"
    return [json.loads(line)["id"] for line in path.read_bytes().split(b"\n")[:-1]]


def _booked(folder: Path, batch_id: str) -> list[int]:
    """What each line was charged, in their order."""
    with closing(database.connect(folder / "data")) as connection:
        rows = [ledger.charges(connection, line_id(batch_id, number)) for number in range(1, LINES + 1)]
    assert [[row.id for row in each] for each in rows] == [
        [charge_id(batch_id, number, 0)] for number in range(1, LINES + 1)
    ]
    return [row.nanos for each in rows for row in each]
