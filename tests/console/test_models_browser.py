"""The pages of models in a real browser, before a real service with real models."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from media import trousers
from serving import Server, tidemill
from small_models import co2_table, fixed, publish, times
from tidemill.kit.install import install

from .conftest import StartConsole, answers

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WATCH_S = "0.3"
SHADES = """engine = "echo"
[[pre]]
step = "image"
mode = "grey"

[[pre]]
step = "resize"
width = 2
height = 2
output = "small"

[[pre]]
step = "normalise"
input = "small"
output = "x"

[[post]]
step = "show"
values = ["y"]

[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 1, 2, 2]

[[outputs]]
name = "y"
datatype = "FP32"
shape = [-1, 1, 2, 2]
"""


def declared(models: Path, name: str, text: str) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "1" / "tidemill.toml").write_text(text)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("models")
    install(["magika", "basic-pitch", "ocr-det", "ocr-cls", "ocr-rec", "ocr"], into)
    for version in (1, 2):
        publish(into, "times", version, times(10.0 * version))
    (into / "times" / "tidemill.toml").write_text('[versions]\npolicy = "all"\n')
    publish(into, "fixed", 1, fixed())
    declared(into, "shades", SHADES)
    declared(into, "tables", co2_table(26))
    (into / "broken" / "1").mkdir(parents=True)
    (into / "broken" / "1" / "model.onnx").write_bytes(b"\x08<b>cut</b>")
    return into


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--no-auth", "--call-nanos", "2000000", "--watch-s", WATCH_S)
    with Server(models, tmp_path_factory.mktemp("data"), *flags) as running:
        yield running


async def opened(page: Page, url: str, model: str) -> Locator:
    """The playground of `model`."""
    await page.goto(f"{url}/models/{model}")
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    return page.locator(".answer")


async def ask(page: Page) -> None:
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.locator(".cost")).to_be_visible()


async def test_the_catalogue_shows_every_model_and_a_filter_finds_one(page: Page, console: str) -> None:
    await page.goto(console + "/models")
    rows = page.locator(".catalogue tbody tr")
    await expect(rows).to_have_count(11)
    await expect(rows.filter(has_text="broken")).to_contain_text("FAILED")
    await expect(rows.filter(has_text="magika")).to_contain_text("bytes")
    await expect(rows.filter(has_text="basic-pitch")).to_contain_text("sound")
    await expect(rows.filter(has_text="times")).to_contain_text("v2, v1")
    await page.get_by_label("filter models").fill("PICTURE avail")
    await expect(rows).to_have_count(5)
    await page.get_by_label("filter models").fill("<b>nobody")
    await expect(page.locator(".bare:visible")).to_have_text("no model matches “<b>nobody”")


async def test_a_refused_model_says_why_and_runs_nothing_of_it(page: Page, console: str) -> None:
    await page.goto(console + "/models")
    await page.locator(".catalogue .opens", has_text="broken").click()
    await expect(page.locator(".versions .reason")).to_contain_text("is not an ONNX model")
    await expect(page.locator(".playground")).to_contain_text("Nothing of this model serves")
    await expect(page).to_have_url(re.compile("/models/broken$"))
    await page.go_back()
    await expect(page.locator(".catalogue")).to_be_visible()
    await page.go_forward()
    await expect(page.locator("h2", has_text="broken")).to_be_visible()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("fixed", "batches: one request at a time: no batch dimension"),
        ("times", "batches: up to 64 rows together"),
        ("ocr", "batches: each stage on its own"),
        ("broken", ""),
    ],
)
async def test_a_model_s_page_says_how_its_requests_run_together_and_why_singly(
    page: Page, console: str, model: str, told: str
) -> None:
    await page.goto(f"{console}/models/{model}")
    await expect(page.locator(".versions tbody tr").first).to_be_visible()
    await expect(page.locator(".batches")).to_have_text(told)
    if told:
        await page.get_by_text("Signature and call").click()
        await expect(page.locator(".facts")).to_contain_text(told.partition(": ")[2])
        await expect(page.locator(".fold h3", has_text="Inputs")).to_have_css("font-size", "13px")


async def test_a_text_is_asked_by_keyboard_alone(page: Page, console: str) -> None:
    answer = await opened(page, console, "magika")
    box = page.locator("textarea")
    await expect(box).to_have_value(re.compile("import math"))
    await box.press("Control+Enter")
    await expect(answer.locator(".bars")).to_contain_text("python")
    await expect(answer.locator(".cost")).to_contain_text("0.002 charged")
    await answer.get_by_text("The same call with curl").press("Enter")
    await expect(answer.locator("pre", has_text="curl")).to_contain_text("/v1/models/magika:predict")
    await answer.get_by_text("Raw answer").press("Enter")
    await expect(answer.locator("pre", has_text="predictions")).to_be_visible()


async def test_what_is_typed_stays_while_the_page_moves(page: Page, console: str, service: Server) -> None:
    answer = await opened(page, console, "magika")
    await page.locator("textarea").fill('#!/bin/sh\nset -eu\nfor each in *; do echo "$each"; done\n')
    before = await page.locator(".versions tbody").inner_text()
    service.predict("magika", b"x", **{"content-type": "application/octet-stream"})
    await expect(page.locator(".versions tbody")).not_to_have_text(before)
    await ask(page)
    await expect(answer.locator(".bars")).to_contain_text("shell")


async def test_a_file_is_opened_and_asked_about_and_a_wrong_one_is_told_in_the_services_words(
    page: Page, console: str
) -> None:
    answer = await opened(page, console, "shades")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(page.locator(".question .message")).to_have_text("Open a file first.")
    field = page.locator("input[type=file]")
    await field.set_input_files({"name": "trousers.png", "mimeType": "image/png", "buffer": trousers()})
    await expect(page.locator(".opened")).to_contain_text("trousers.png")
    await expect(page.locator(".picture img")).to_have_js_property("naturalWidth", 56)
    await ask(page)
    await expect(answer).to_contain_text("[1, 1, 2, 2]")
    await field.set_input_files({"name": "cut.png", "mimeType": "image/png", "buffer": trousers()[:60]})
    await expect(page.locator(".opened")).to_contain_text("cut.png")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(answer.locator(".message")).to_contain_text("(400)")
    await expect(answer.locator(".cost")).to_contain_text("not charged")
    await page.get_by_role("button", name="remove").click()
    await expect(page.locator(".picture")).to_be_hidden()


async def test_text_that_was_read_lies_over_its_picture(page: Page, console: str) -> None:
    answer = await opened(page, console, "ocr")
    await page.get_by_role("button", name="Draw a receipt").click()
    await expect(page.locator(".opened")).to_contain_text("receipt.png")
    await ask(page)
    await expect(answer.locator(".lines")).to_contain_text("Croissant")
    count = await answer.locator(".lines li").count()
    await expect(page.locator(".over polygon")).to_have_count(count)
    over, picture = await page.locator(".over svg").bounding_box(), await page.locator(".picture img").bounding_box()
    assert over is not None
    assert picture is not None
    assert abs(over["width"] - picture["width"]) < 2


async def test_a_tone_is_made_heard_and_drawn_as_a_note(page: Page, console: str) -> None:
    answer = await opened(page, console, "basic-pitch")
    await page.get_by_role("button", name="Make a 440 Hz tone").click()
    await expect(page.locator("audio")).to_be_visible()
    await ask(page)
    await expect(answer.locator(".roll .sounds")).to_have_count(1)
    await expect(answer.locator(".roll")).to_contain_text("A4")


async def test_a_table_gives_a_curve(page: Page, console: str) -> None:
    answer = await opened(page, console, "tables")
    await expect(page.locator("textarea")).to_have_value(re.compile("date,co2"))
    await ask(page)
    await expect(answer.locator("canvas")).to_be_visible()
    await answer.get_by_text("As a table of 26").click()
    await expect(answer.locator("table")).to_contain_text("2004-01-03")


async def test_tensors_fit_as_they_stand_and_a_version_can_be_chosen(page: Page, console: str) -> None:
    answer = await opened(page, console, "times")
    await page.locator("textarea").fill('{"instances": [[3.0]]}')
    await ask(page)
    await expect(answer).to_contain_text("60 … 60")
    await page.get_by_label("version to be asked").select_option("1")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(answer).to_contain_text("30 … 30")
    await page.locator("textarea").fill("{")
    await page.get_by_role("button", name="Ask", exact=True).click()
    await expect(answer.locator(".message")).to_contain_text("JSON")
    await page.get_by_role("button", name="Example").click()
    await expect(page.locator("textarea")).to_have_value('{"inputs": {"x": [[0.0]]}}')


async def test_a_label_is_set_and_one_that_cannot_be_is_told(page: Page, console: str, service: Server) -> None:
    await opened(page, console, "times")
    await page.get_by_label("label", exact=True).fill("stable")
    await page.get_by_label("version of the label").select_option("1")
    await page.get_by_role("button", name="Set").click()
    await expect(page.locator(".versions tbody tr").nth(1)).to_contain_text("stable")
    asked = service.client.post("/v1/models/times/labels/stable:predict", json={"instances": [[3.0]]})
    assert asked.json() == {"predictions": [[30.0]]}


async def test_unload_asks_twice_and_load_brings_the_model_back(page: Page, console: str, service: Server) -> None:
    await opened(page, console, "tables")
    await page.get_by_role("button", name="Unload", exact=True).click()
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.locator(".ask-twice")).to_be_hidden()
    assert service.client.get("/v1/models/tables").status_code == 200
    await page.get_by_role("button", name="Unload", exact=True).click()
    await page.get_by_role("button", name="Unload it").click()
    await expect(page.get_by_text("tables is unloaded.")).to_be_visible()
    await expect(page.locator(".versions")).to_contain_text("NOT LOADED")
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_hidden()
    assert service.client.get("/v1/models/tables").status_code == 404
    await page.get_by_role("button", name="Load", exact=True).click()
    await expect(page.get_by_text("tables is loaded.")).to_be_visible()
    await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


async def test_a_reload_that_is_refused_is_told_in_the_services_words(page: Page, console: str) -> None:
    await page.goto(console + "/models/broken")
    await page.get_by_role("button", name="Reload").click()
    await expect(page.locator(".message:visible")).to_contain_text("is not an ONNX model")


async def test_a_model_that_disappears_takes_its_buttons_along(page: Page, console: str, models: Path) -> None:
    publish(models, "passing", 1, times(2.0))
    await opened(page, console, "passing")
    shutil.rmtree(models / "passing")
    await expect(page.locator(".message:visible")).to_contain_text("There is no model 'passing' in the repository")
    await expect(page.locator(".playground")).to_be_hidden()
    await expect(page.get_by_role("button", name="Unload", exact=True)).to_be_hidden()
    await page.get_by_role("button", name="All models").click()
    await expect(page.locator(".catalogue")).to_contain_text("magika")


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_wider_than_the_window_and_all_is_readable(
    page: Page, console: str, width: int, scheme: str
) -> None:
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto(console + "/models")
    await expect(page.locator(".catalogue")).to_contain_text("magika")
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    await opened(page, console, "magika")
    await ask(page)
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    ground, ink = await page.evaluate(
        "[getComputedStyle(document.querySelector('textarea')).backgroundColor,"
        " getComputedStyle(document.querySelector('textarea')).color]"
    )
    assert abs(_light(ground) - _light(ink)) > 0.5


def _light(colour: str) -> float:
    """0 to 1."""
    return sum(int(each) for each in re.findall(r"\d+", colour)[:3]) / 765


async def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(
    page: Page, start: StartConsole, service: Server
) -> None:
    _, url = start(service.url, "--body-bytes-max", "5000")
    answers(url)
    await opened(page, url, "shades")
    await page.locator("input[type=file]").set_input_files(
        {"name": "large.png", "mimeType": "image/png", "buffer": b"\x89PNG" + b"x" * 5000}
    )
    await expect(page.locator(".question .message")).to_contain_text("larger than 5.0 kB")


async def test_with_keys_a_try_is_charged_to_the_tenant_and_a_service_that_goes_away_is_told(
    page: Page, start: StartConsole, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models, data = tmp_path_factory.mktemp("few"), tmp_path_factory.mktemp("guarded")
    publish(models, "times", 1, times(2.0))
    keys = {
        tenant: tidemill("keys", "create", "--tenant", tenant, "--data-dir", data, *flags).stdout.strip()
        for tenant, flags in {"acme": (), "operators": ("--admin",)}.items()
    }
    with Server(models, data) as guarded:
        _, url = start(guarded.url)
        answers(url)
        await page.goto(url + "/models/times")
        field = page.get_by_label("admin key")
        for key, said in (("tm-wrong", "not known"), (keys["acme"], "may not use the admin API")):
            await field.fill(key)
            await field.press("Enter")
            await expect(page.locator(".ask")).to_contain_text(said)
        await field.fill(keys["operators"])
        await field.press("Enter")
        await ask(page)
        headers = {"authorization": f"Bearer {keys['operators']}"}
        rows = guarded.client.get("/admin/v1/usage", headers=headers).json()["rows"]
        assert [(row["tenant"], row["model"], row["calls"]) for row in rows] == [("operators", "times", 1)]
        guarded.kill()
        await expect(page.locator(".banner").first).to_contain_text("does not answer since")
        await expect(page.get_by_role("button", name="Unload", exact=True)).to_be_hidden()
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(page.locator(".answer .message")).to_be_visible()
