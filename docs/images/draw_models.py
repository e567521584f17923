"""Draws the pictures of the console's model pages from a running service that holds the kit; run by hand, wants chromium.

    python docs/images/draw_models.py http://127.0.0.1:8002

The address is the console's, of a service that asks for no keys.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, async_playwright

HERE = Path(__file__).parent
COLOURS = 96
"""Enough for a page of text, and a third of the bytes."""
PATIENCE_MS = 60_000


async def keep(page: Page, name: str, height: int) -> None:
    shot = await page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": height})
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(HERE / name, optimize=True)


async def main(console: str) -> None:
    async with async_playwright() as play:
        browser = await play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(f"{console}/models")
        await page.wait_for_selector(".catalogue .opens")
        await page.wait_for_timeout(4000)
        await keep(page, "console-models.png", 640)
        await page.locator(".catalogue .opens").get_by_text("ocr", exact=True).click()
        await page.get_by_role("button", name="Draw a receipt").click()
        await page.wait_for_selector(".opened >> visible=true")
        await page.get_by_role("button", name="Ask", exact=True).click()
        await page.wait_for_selector(".over polygon")
        await page.wait_for_timeout(1500)
        await keep(page, "console-try.png", 920)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].rstrip("/")))
