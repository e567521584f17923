"""The playground of a model that speaks, in a real browser, before a real service with a real small model."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Locator, Page, expect

from real_words import NAMES
from serving import Server, eventually
from tidemill.core.places import cache_dir
from tidemill.kit.install import install

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PRICES = ("--call-nanos", "5000", "--prompt-token-nanos", "1000", "--completion-token-nanos", "3000")
TOOK = re.compile(r"(\d+) tokens.* in, (\d+) out .*tokens/s · first after .* s · ([\d.]+) charged")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = cache_dir() / "models-of-tests"
    install(list(NAMES), models)
    with Server(models, tmp_path_factory.mktemp("data"), *NAMES, "--no-auth", *PRICES) as running:
        yield running


SLOW_MS = 60_000
"""A browser, a console, a service and a language model share two cores here."""


async def opened(page: Page, url: str, temperature: str = "0", tokens: str = "24") -> Locator:
    """The conversation with the model."""
    page.set_default_timeout(SLOW_MS)
    await page.goto(f"{url}/models/smollm2")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await page.get_by_text("System prompt, temperature, length").click()
    await page.get_by_label("temperature").fill(temperature)
    await page.get_by_label("tokens of an answer, at most").fill(tokens)
    return page.locator(".talk")


async def say(page: Page, text: str) -> None:
    box = page.get_by_label("what you say")
    await box.fill(text)
    await box.press("Control+Enter")


async def pressed(page: Page, name: str) -> None:
    """By key: what moves while an answer grows above it is never still enough for the mouse of a test."""
    await page.get_by_role("button", name=name).press("Enter", timeout=SLOW_MS)


async def test_a_conversation_is_answered_word_by_word_with_tokens_and_price(
    page: Page, console: str, service: Server
) -> None:
    talk = await opened(page, console)
    await say(page, "What is the capital of France?")
    await expect(talk.locator(".theirs .words")).to_contain_text("Paris")
    cost = talk.locator(".theirs .cost")
    await expect(cost).to_have_text(TOOK)
    found = TOOK.search(await cost.inner_text())
    assert found is not None
    prompt, answer = int(found[1]), int(found[2])
    assert float(found[3]) == pytest.approx((5000 + prompt * 1000 + answer * 3000) / 1e9)
    (row,) = service.client.get("/admin/v1/usage").json()["rows"]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (prompt, answer), "the ledger says the same"
    await expect(page.get_by_label("what you say")).to_have_value("")
    await say(page, "And of Italy?")
    await expect(talk.locator(".cost").nth(1)).to_have_text(TOOK)
    later = TOOK.search(await talk.locator(".cost").nth(1).inner_text())
    assert later is not None
    assert int(later[1]) > prompt + answer, "what was said before goes along"
    await expect(page.get_by_label("temperature")).to_have_value("0")
    await page.get_by_text("The same call with curl").click()
    await expect(page.locator("pre", has_text="curl")).to_contain_text("/v1/chat/completions")
    await page.get_by_role("button", name="Clear").click()
    await expect(talk.locator(".turn")).to_have_count(0)


async def test_stop_hangs_up_and_the_engine_is_free_at_once(page: Page, console: str, service: Server) -> None:
    talk = await opened(page, console, tokens="2000")
    await page.get_by_label("system prompt").fill("You count, and never stop.")
    await say(page, "Count from 1 to 2000, one number a line.")
    await expect(talk.locator(".theirs .words")).to_contain_text("1", timeout=SLOW_MS)
    assert service.in_flight >= 1
    await pressed(page, "Stop")
    await expect(talk.locator(".cost")).to_contain_text("stopped after", timeout=SLOW_MS)
    await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    eventually(lambda: service.in_flight == 0, "the answer to be given up", SLOW_MS / 1000)
    await say(page, "What is the capital of France?")
    await expect(talk.locator(".cost").nth(1)).to_be_visible(timeout=SLOW_MS)


async def test_a_page_that_goes_away_hangs_up(page: Page, console: str, service: Server) -> None:
    talk = await opened(page, console, tokens="2000")
    await say(page, "Count from 1 to 2000, one number a line.")
    await expect(talk.locator(".theirs .words")).to_contain_text("1", timeout=SLOW_MS)
    await pressed(page, "All models")
    await page.locator(".catalogue .opens", has_text="minilm").click()
    eventually(lambda: service.in_flight == 0, "the answer to be given up", SLOW_MS / 1000)


async def test_what_cannot_be_is_told(page: Page, console: str) -> None:
    talk = await opened(page, console, tokens="1000000")
    message = page.locator(".chat .message")
    await say(page, "  ")
    await expect(message).to_contain_text("nothing to ask")
    await say(page, "<b>hello</b>")
    await expect(talk.locator(".mine")).to_have_text("<b>hello</b>")
    await expect(talk.locator(".cost.bad")).to_contain_text("(400)")
    await page.get_by_label("temperature").fill("3")
    await say(page, "hello")
    await expect(message).to_contain_text("0 to 2")
