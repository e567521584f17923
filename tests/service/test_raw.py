"""Files go in, answers for people come out: the kit's models with their steps, over HTTP, in a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from media import form, png, png_that_claims, tone, trousers, wav
from serving import Server, eventually
from small_models import co2_table
from tidemill.kit.install import install

pytestmark = pytest.mark.slow

PICTURES = """
[[inputs]]
name = "image"
datatype = "FP32"
shape = [-1, 1, 4, 4]

[[outputs]]
name = "pixels"
datatype = "FP32"
shape = [-1, 1, 4, 4]
"""
SMALL = (
    """engine = "echo"
[[pre]]
step = "image"
mode = "grey"

[[pre]]
step = "resize"
width = 4
height = 4

[[pre]]
step = "normalise"
"""
    + PICTURES
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["half", "magika", "minilm", "basic-pitch", "silero-vad"], into)
    for name, text in {"small": SMALL, "tables": co2_table(3)}.items():
        (into / name / "1").mkdir(parents=True)
        (into / name / "1/tidemill.toml").write_text(text)
    wrong = into / "wrong/1"
    wrong.mkdir(parents=True)
    (wrong / "tidemill.toml").write_text(SMALL.replace('"resize"', '"resise"'))
    return into


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    with Server(models, data, "--no-auth", "--body-bytes-max", "2000000", "--call-nanos", "7") as running:
        yield running


def ask(server: Server, model: str, body: bytes, media: str, **headers: str) -> Any:
    answer = server.predict(model, body, **{"content-type": media}, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["predictions"]


def refused(server: Server, model: str, body: bytes, media: str) -> tuple[int, str, str]:
    answer = server.predict(model, body, **{"content-type": media})
    return answer.status_code, answer.json()["code"], answer.json()["error"]


def test_any_file_gets_its_type(server: Server) -> None:
    source = Path(__file__).read_bytes()
    assert ask(server, "magika", source, "application/octet-stream")[0]["label"] == "python"
    assert ask(server, "magika", png(300, 300), "image/png")[0]["label"] == "png"


def test_a_text_gives_the_vector_that_tokenizer_and_model_give(server: Server, models: Path) -> None:
    text = "The mill turns with the tide."
    vector = np.array(ask(server, "minilm", text.encode(), "text/plain; charset=utf-8"))
    tokens = Tokenizer.from_file(str(models / "minilm/1/tokenizer.json"))
    tokens.no_padding()
    ids = np.array([tokens.encode(text).ids], np.int64)
    session = onnxruntime.InferenceSession(models / "minilm/1/model.onnx", providers=["CPUExecutionProvider"])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (alone,) = session.run(["sentence_embedding"], given)
    assert vector.shape == (384,)
    assert vector @ alone[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rate_hz", [22_050, 44_100])
def test_a_sound_gives_its_notes(server: Server, rate_hz: int) -> None:
    """440 Hz for 3 s, then 523 Hz: more than one window, so they are joined."""
    sound = np.concatenate([tone(440, 3, rate_hz), tone(523.25, 2, rate_hz)])
    first, second = ask(server, "basic-pitch", wav(sound, rate_hz), "audio/wav")
    assert (first["midi"], first["note"], second["midi"]) == (69, "A4", 72)
    assert first["start_s"] == pytest.approx(0, abs=0.1)
    assert first["end_s"] == pytest.approx(3, abs=0.15)
    assert second["end_s"] == pytest.approx(5, abs=0.1)


def test_speech_is_heard_where_the_models_state_is_carried_on(server: Server) -> None:
    from doors.rest.test_real_models import RATE_HZ, sounds

    (span,) = ask(server, "silero-vad", wav(np.clip(sounds(), -1, 1), RATE_HZ), "audio/x-wav")
    assert 0.9 < span["start_s"] < span["end_s"] < 2.2
    assert ask(server, "silero-vad", wav(np.zeros(RATE_HZ), RATE_HZ), "audio/wav") == []


def test_a_model_without_last_steps_shows_what_it_gave(server: Server) -> None:
    found = ask(server, "small", png(2, 2, "L", 255), "image/png")
    assert np.array(found["pixels"]).shape == (1, 1, 4, 4)
    assert np.array(found["pixels"]).min() == 1


def test_a_table_gives_what_follows_with_its_dates(server: Server) -> None:
    found = ask(server, "tables", b"date,co2\n2000-01,1\n2000-02,2\n2000-03,3\n2000-04,4\n", "text/csv")
    assert [(each["index"], each["value"]) for each in found] == [("2000-05", 2), ("2000-06", 3), ("2000-07", 4)]


def test_a_form_with_a_file_is_the_file(server: Server) -> None:
    content_type, body = form({"file": ("x.png", png(2, 2, "L", 255), "")}, {"who": "me"})
    assert ask(server, "small", body, content_type)["pixels"][0][0][0][0] == 1


BAD = [
    ("small", trousers()[:80], "image/png", 400, "input.media", "cut short"),
    ("small", png_that_claims(900, 900), "image/png", 400, "input.media", "cut short"),
    ("small", png_that_claims(60_000, 60_000), "image/png", 400, "input.media", "image-pixels-max"),
    ("small", png(10_000, 10_000), "image/png", 400, "input.media", "10000 x 10000"),
    ("small", b"", "image/png", 400, "input.media", "no PNG"),
    ("small", b"\0" * 2_000_001, "image/png", 413, "request.too_large", "body-bytes-max"),
    ("small", png(), "image/webp", 415, "request.media", "it reads image/png, image/jpeg"),
    ("small", png(), "video/mp4", 415, "request.media", "'video/mp4'"),
    ("half", png(), "image/png", 415, "request.media", "has no [[pre]]"),
    ("basic-pitch", wav(np.zeros(0), 8000), "audio/wav", 400, "input.media", "not one sample"),
    ("tables", b"date,co2\n2000,much\n", "text/csv", 400, "input.media", "'much' in the column 'co2'"),
    ("tables", b"date,co2\n2000,1\n", "text/csv", 400, "input.media", "has 1 values"),
    ("minilm", b"caf\xe9", "text/plain", 400, "input.media", "UTF-8; byte 3 is e9"),
    ("small", *reversed(form({}, {"a": "b"})), 400, "request.malformed", "holds 0 files"),
    ("small", *reversed(form({"f": ("a.gif", b"GIF89a", "")})), 415, "request.media", "'image/gif'"),
    ("small", b"{}", "application/json", 400, "request.malformed", "instances"),
    ("nobody", png(), "image/png", 404, "model.unknown", "no model"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "body", "media", "status", "code", "says"), BAD)
def test_bad_bodies_get_a_code_and_a_reason(
    server: Server, model: str, body: bytes, media: str, status: int, code: str, says: str
) -> None:
    found = refused(server, model, body, media)
    assert found[:2] == (status, code), found
    assert says in found[2]
    assert server.predict("half", {"instances": [4.0]}).json() == {"predictions": [2.0]}


@pytest.mark.parametrize(
    "media", [None, "application/json", "text/plain", "application/x-www-form-urlencoded", "application/vnd.x+json"]
)
def test_tensors_to_a_model_with_steps_are_taken_as_ever(server: Server, media: str | None) -> None:
    rows = np.arange(16, dtype=float).reshape(1, 1, 4, 4).tolist()
    body = json.dumps({"instances": rows}).encode()
    headers = {"content-type": media} if media else {}
    answer = server.client.post("/v1/models/small:predict", content=body, headers=headers)
    assert answer.json() == {"predictions": rows}


def test_a_raw_call_is_one_call_and_a_bad_one_none(server: Server) -> None:
    def booked() -> int:
        rows = server.client.get("/admin/v1/usage").json()["rows"]
        return sum(row["calls"] for row in rows if row["model"] == "basic-pitch")

    before = booked()
    ask(server, "basic-pitch", wav(tone(440, 8, 22_050), 22_050), "audio/wav")
    refused(server, "basic-pitch", b"RIFF", "audio/wav")
    assert booked() == before + 1


def test_the_deadline_holds_for_the_steps_too(server: Server) -> None:
    answer = server.predict("small", png(), **{"content-type": "image/png", "x-request-timeout-ms": "0"})
    assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")
    eventually(lambda: server.in_flight == 0, "nothing in flight")


def test_an_unknown_step_refuses_the_model_with_what_is_meant(server: Server) -> None:
    (reason,) = server.client.get("/readyz").json()["reasons"]
    assert "wrong" in reason
    told = server.client.get("/v1/models/wrong").json()["model_version_status"][0]["status"]["error_message"]
    assert "[[pre]] 2: there is no step 'resise', did you mean 'resize'?" in told
