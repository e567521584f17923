"""A console process beside a fake admin API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, async_playwright, expect

import needs
from fakes_admin import FakeAdmin, free_port, serving
from serving import Server

OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
PATIENCE_MS = 30_000
"""A browser, a console and a service share what cores there are."""

StartConsole = Callable[..., tuple[subprocess.Popen[bytes], str]]


def environment() -> dict[str, str]:
    """This one, without the word by which NiceGUI thinks itself under test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def answers(url: str) -> str:
    """The page at `url`, once its server is up."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=7), timeout=20, trust_env=False) as http:
        return http.get(url).raise_for_status().text


@pytest.fixture
def admin() -> FakeAdmin:
    fake = FakeAdmin()

    def count() -> None:
        for model in fake.models:
            model.answer(7)

    fake.on_overview = count
    return fake


@pytest.fixture
def api(admin: FakeAdmin) -> Iterator[str]:
    with serving(admin) as url:
        yield url


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartConsole]:
    """Starts consoles in an empty folder, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(api: str, *more: str) -> tuple[subprocess.Popen[bytes], str]:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "tidemill.console", "--api", api, "--port", str(port), *more],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def console(service: Server, start: StartConsole) -> str:
    """The address of one before the module's own `service`."""
    _, url = start(service.url)
    answers(url)
    return url


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    chromium = needs.chromium()
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=chromium, args=OFFLINE)
        page = await browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        await browser.close()
