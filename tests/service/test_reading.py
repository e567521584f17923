"""A receipt goes in, its text comes out: an ensemble of three real models over HTTP; and a table's forecast."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from media import png, png_that_claims, saved
from serving import Server, eventually, tidemill
from tidemill.kit.install import install

pytestmark = pytest.mark.slow

RECEIPT = ["TIDEMILL", "Espresso  2.40", "Apple cake  3.80", "Total  6.20", "Thank you"]


def receipt(turned: int = 0) -> Image.Image:
    picture = Image.new("RGB", (420, 420), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(30)
    for place, line in enumerate(RECEIPT):
        draw.text((40, 40 + place * 70), line, fill="black", font=font)
    return picture.rotate(turned, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)


def read(predictions: list[dict[str, Any]]) -> str:
    return "".join(line["text"] for line in predictions).replace(" ", "")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["ocr", "ocr-rec", "ocr-cls", "ocr-det", "co2-forecast", "half"], into)
    return into


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(models, tmp_path_factory.mktemp("data"), "--no-auth", "--call-nanos", "7") as running:
        yield running


def ask(server: Server, model: str, body: bytes, media: str) -> Any:
    answer = server.predict(model, body, **{"content-type": media})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


@pytest.mark.parametrize("turned", [0, 4, -8])
@pytest.mark.parametrize(("kind", "media"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_receipt_is_read(server: Server, turned: int, kind: str, media: str) -> None:
    found = ask(server, "ocr", saved(receipt(turned), kind), media)
    assert read(found) == "".join(RECEIPT).replace(" ", "")
    assert all(line["score"] > 0.8 for line in found)
    if not turned:
        left, top = found[0]["box"][0]
        assert abs(left - 40) < 12
        assert abs(top - 45) < 15


def test_a_receipt_upside_down_is_read_line_by_line(server: Server) -> None:
    found = ask(server, "ocr", saved(receipt(180)), "image/png")
    assert found[-1]["text"] == "TIDEMILL"
    assert {"TIDEMILL", "Thankyou"} <= {line["text"].replace(" ", "") for line in found}


def test_a_white_picture_holds_no_text(server: Server) -> None:
    assert ask(server, "ocr", png(200, 100, "L", 255), "image/png") == []


def test_the_same_ensemble_takes_tensors(server: Server) -> None:
    pixels = np.asarray(receipt().convert("RGB"))[..., ::-1]
    image = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    answer = server.infer("ocr", {"inputs": [image]})
    assert answer.status_code == 200, answer.text
    outputs = {each["name"]: each for each in answer.json()["outputs"]}
    assert "".join(outputs["text"]["data"]).replace(" ", "") == "".join(RECEIPT).replace(" ", "")
    count = len(outputs["text"]["data"])
    assert (outputs["boxes"]["shape"], outputs["score"]["shape"]) == ([count, 4, 2], [count])
    told = server.client.get("/v2/models/ocr").json()
    assert told["platform"] == "ensemble"


def test_each_stage_reads_pictures_by_itself(server: Server) -> None:
    line = receipt().crop((30, 35, 260, 85))
    assert ask(server, "ocr-rec", saved(line), "image/png")[0]["text"] == "TIDEMILL"
    upright, over = (ask(server, "ocr-cls", saved(line.rotate(angle)), "image/png")[0] for angle in (0, 180))
    assert (upright["label"], over["label"]) == ("0", "180")
    assert len(ask(server, "ocr-det", saved(receipt()), "image/png")["boxes"]) >= len(RECEIPT)


def test_an_ensemble_is_priced_as_one_call(server: Server) -> None:
    def usage() -> dict[str, tuple[int, int]]:
        rows = server.client.get("/admin/v1/usage").json()["rows"]
        return {row["model"]: (row["calls"], row["nanos"]) for row in rows}

    before = usage()
    ask(server, "ocr", saved(receipt()), "image/png")
    after = usage()
    changed = {model: after[model] for model in after if after[model] != before.get(model)}
    calls, nanos = before.get("ocr", (0, 0))
    assert changed == {"ocr": (calls + 1, nanos + 7)}


def test_lines_of_one_picture_are_batched(server: Server) -> None:
    labels = '{model="ocr-rec",version="1"}'
    names = [f"tidemill_{name}{labels}" for name in ("requests_total", "batch_rows_count")]
    asked = batches = 0.0
    for _ in range(5):  # on a machine that is busy enough each line finds an engine free
        before = server.metrics()
        ask(server, "ocr", saved(receipt()), "image/png")
        after = server.metrics()
        asked, batches = (after[name] - before[name] for name in names)
        if batches < asked:
            break
    assert asked >= len(RECEIPT)
    assert batches < asked


def test_the_deadline_holds_for_the_stages(server: Server) -> None:
    headers = {"content-type": "image/png", "x-request-timeout-ms": "30"}
    answer = server.predict("ocr", saved(receipt()), **headers)
    assert (answer.status_code, answer.json()["code"]) == (504, "request.deadline")
    eventually(lambda: server.in_flight == 0, "nothing in flight")


@pytest.mark.parametrize("body", [saved(receipt())[:2000], png_that_claims(40_000, 40_000), b"\x89PNG\r\n\x1a\n"])
def test_a_bad_picture_is_refused(server: Server, body: bytes) -> None:
    answer = server.predict("ocr", body, **{"content-type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (400, "input.media")


def test_a_table_gives_the_year_that_follows(server: Server, models: Path) -> None:
    sample = (models / "co2-forecast/1/sample.csv").read_bytes()
    found = ask(server, "co2-forecast", sample, "text/csv")
    assert len(found) == 52
    assert (found[0]["index"], found[0]["step"]) == ("19891111", 1)
    last = float(sample.decode().split()[-1].split(",")[1])
    assert abs(found[0]["value"] - last) < 2
    spring = max(found, key=lambda each: each["value"])
    assert spring["index"][4:6] in ("04", "05", "06")  # when the air over the north holds most
    answer = server.predict("co2-forecast", sample[:100], **{"content-type": "text/csv"})
    assert answer.json()["code"] == "input.media"


def test_the_command_line_reads_files_through_the_same_steps(models: Path, tmp_path: Path) -> None:
    picture = tmp_path / "receipt.png"
    picture.write_bytes(saved(receipt()))
    told = tidemill("try", "ocr", picture, "--models", models, "--json")
    assert told.returncode == 0, told.stderr
    assert read(json.loads(told.stdout)["predictions"]) == "".join(RECEIPT).replace(" ", "")
    table = tidemill("try", "co2-forecast", models / "co2-forecast/1/sample.csv", "--models", models).stdout
    assert table.splitlines()[0].startswith("index 19891111  step 1  value 35")
    assert "answered in" in table
    sample = tidemill("try", "ocr", "--models", models, "--json")
    assert set(json.loads(sample.stdout)["outputs"]) == {"boxes", "text", "score"}
    wrong = tidemill("try", "ocr", models / "co2-forecast/1/sample.csv", "--models", models)
    assert wrong.returncode == 1
    assert "does not read 'text/csv'; it reads image/png" in wrong.stderr
    shown = tidemill("show", "ocr", "--models", models).stdout
    assert "asks     ocr-det, ocr-cls, ocr-rec" in shown
