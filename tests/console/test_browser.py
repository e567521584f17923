"""The page in a real browser."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from fakes_admin import FakeAdmin, FakeModel, compressed

from .conftest import StartConsole, answers

pytestmark = [pytest.mark.browser, pytest.mark.slow]


async def figure(page: Page, name: str) -> str:
    """What the tile `name` shows below its figure."""
    return await page.locator(".tile", has_text=name).locator(".note").inner_text()


async def test_the_page_moves_and_asks_no_other_host(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    _, url = start(api)
    answers(url)
    hosts: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).netloc))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    await page.goto(url)
    await expect(page.locator(".models")).to_contain_text("magika")
    await expect(page.locator(".state")).to_have_text("ready")
    first = await figure(page, "requests / s")
    await expect(page.locator(".tile", has_text="requests / s").locator(".note")).not_to_have_text(first)
    await expect(page.locator(".charts canvas")).to_have_count(3)
    assert hosts - {""} == {urlsplit(url).netloc}
    assert errors == []


async def test_a_row_opens_the_signature_and_a_call(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.models.append(FakeModel("<img src=x onerror=alert(1)>", 2, state="FAILED", reason="<b>no</b> such operator"))
    _, url = start(api)
    answers(url)
    await page.goto(url)
    await expect(page.locator(".banner")).to_contain_text("<b>no</b> such operator")
    await page.locator(".opens", has_text="magika").click()
    await expect(page.locator(".sheet")).to_contain_text("[any, 2048]")
    await expect(page.locator(".sheet .call")).to_contain_text("/v2/models/magika/versions/1/infer")
    assert await page.locator("img").count() == 0


async def test_tokens_and_their_prices_are_shown(page: Page, start: StartConsole, admin: FakeAdmin, api: str) -> None:
    tokens = {"prompt_tokens": 1_234_567, "completion_tokens": 89_012}
    prices = {"price_nanos": 0, "prompt_token_nanos": 150, "completion_token_nanos": 600}
    admin.models.append(FakeModel("gpt-4o", engine="remote", **prices, **tokens))
    _, url = start(api)
    answers(url)
    await page.goto(url)
    usage = page.locator(".card", has=page.locator("h2", has_text="Usage")).locator("tr")
    await expect(usage.filter(has_text="gpt-4o")).to_contain_text("1,234,567")
    await expect(usage.filter(has_text="gpt-4o")).to_contain_text("89,012")
    await expect(usage.filter(has_text="magika")).to_contain_text("–")
    await page.locator(".opens", has_text="gpt-4o").click()
    told = "0.15 a million prompt tokens, 0.60 a million completion tokens"
    await expect(page.locator(".sheet")).to_contain_text(told)


async def test_batches_are_shown_with_how_far_they_are(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    _, url = start(api)
    answers(url)
    await page.goto(url)
    card = page.locator(".card", has=page.locator("h2", has_text="Batches"))
    await expect(card).to_be_hidden()
    job = {"id": "batch_0123456789abc", "tenant": "<b>acme</b>", "endpoint": "/v1/embeddings", "created_at": 1}
    admin.jobs = [{**job, "status": "in_progress", "total": 40, "completed": 10, "failed": 2}]
    await expect(card).to_contain_text("12 of 40, 30 %")
    await expect(card).to_contain_text("<b>acme</b>")
    admin.jobs = [{**job, "status": "completed", "total": 40, "completed": 38, "failed": 2}]
    await expect(card).to_contain_text("40 of 40, 100 %")


async def test_a_wanted_key_is_asked_for_and_kept_nowhere(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.key = "adminkey"
    process, url = start(api)
    answers(url)
    await page.goto(url)
    field = page.get_by_label("admin key")
    await expect(page.locator(".ask")).to_contain_text("no key was given")
    await field.fill("wrong")
    await field.press("Enter")
    await expect(page.locator(".ask")).to_contain_text("this key is not known")
    assert not await page.locator(".tiles").is_visible()
    await field.fill("adminkey")
    await field.press("Enter")
    await expect(page.locator(".models")).to_contain_text("magika")
    assert "adminkey" not in await page.content()
    assert await page.evaluate("document.cookie + Object.values(localStorage).join()") == ""
    await page.reload()
    await expect(page.locator(".ask")).to_contain_text("no key was given")
    process.terminate()
    assert b"adminkey" not in process.communicate(timeout=5)[0]


async def test_an_empty_service_says_what_to_do_and_a_lost_one_since_when(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.models.clear()
    _, url = start(api)
    answers(url)
    await page.goto(url)
    await expect(page.locator(".empty")).to_have_text("no model is served: tidemill serve PATH")
    assert not await page.locator(".banner").is_visible()
    _, other = start("http://127.0.0.1:9")
    answers(other)
    await page.goto(other)
    await expect(page.locator(".banner")).to_contain_text("The service at http://127.0.0.1:9 does not answer since")


async def test_compressed_models_are_listed_and_their_report_is_shown_but_never_run(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.lineages = [compressed(), compressed("lost", created_at=1.0)]
    admin.reports["minilm-int8"] = "<h1>25.3 % of its size</h1><script>document.title='ran'</script>"
    _, url = start(api)
    answers(url)
    await page.goto(url)
    await page.get_by_role("button", name="Compression").click()
    await expect(page.locator(".lineage")).to_contain_text("minilm@1")
    await expect(page.locator(".lineage")).to_contain_text("4.8×")
    await expect(page.locator(".lineage")).to_contain_text("99.82%")
    assert not await page.locator(".tiles").is_visible()
    await page.locator(".opens", has_text="minilm-int8").click()
    await expect(page.frame_locator(".paper iframe").locator("h1")).to_have_text("25.3 % of its size")
    assert await page.title() == "Tidemill"
    await page.get_by_role("button", name="close").click()
    await page.locator(".opens", has_text="lost").click()
    await expect(page.locator(".paper .banner")).to_contain_text("there is no such report")


async def test_nothing_compressed_says_what_to_do(page: Page, start: StartConsole, api: str) -> None:
    _, url = start(api)
    answers(url + "/compression")
    await page.goto(url + "/compression")
    await expect(page.locator(".nothing")).to_contain_text("tidemill compress MODEL")
    await page.get_by_role("button", name="Overview").click()
    await expect(page.locator(".models")).to_contain_text("magika")


async def test_a_model_that_is_loading_shows_it_and_takes_no_other_order(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.models[0].state = "LOADING"
    _, url = start(api)
    answers(url)
    await page.goto(url + "/models/magika")
    await expect(page.locator(".progress")).to_contain_text("loading")
    await expect(page.get_by_role("button", name="Unload", exact=True)).to_be_disabled()
    admin.models[0].state = "AVAILABLE"
    await expect(page.locator(".progress")).to_be_hidden()
    await expect(page.get_by_role("button", name="Unload", exact=True)).to_be_enabled()


async def test_an_empty_repository_says_what_to_do_and_a_service_without_an_index_what_is_missing(
    page: Page, start: StartConsole, admin: FakeAdmin, api: str
) -> None:
    admin.models.clear()
    admin.index = []
    _, url = start(api)
    answers(url)
    await page.goto(url + "/models")
    await expect(page.locator(".bare:visible")).to_contain_text("tidemill demo")
    admin.index = None
    admin.models.append(FakeModel("late"))
    await expect(page.get_by_text("Only what is loaded is shown")).to_be_visible()
    await expect(page.locator(".catalogue")).to_contain_text("late")


@pytest.mark.parametrize("width", [400, 1280])
async def test_nothing_is_wider_than_the_window(page: Page, start: StartConsole, api: str, width: int) -> None:
    _, url = start(api)
    answers(url)
    await page.set_viewport_size({"width": width, "height": 900})
    await page.goto(url)
    await expect(page.locator(".models")).to_contain_text("magika")
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")
