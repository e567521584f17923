"""Draws the two pictures of the README anew from a real service with real traffic; run by hand, wants chromium.

    python docs/images/draw.py MODELS

MODELS is a repository that holds the kit (`tidemill demo --fetch-only --models MODELS`).
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np
from playwright.async_api import async_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tidemill.kit.samples import sample

HERE = Path(__file__).parent
COLUMNS = 106
TRAFFIC_S = 200.0
PAUSE_S = {"half": 0.05, "magika": 0.2, "silero-vad": 0.032, "basic-pitch": 1.0, "basic-pitch-savedmodel": 1.0}
CALLERS = {"magika": 6, "half": 8, "silero-vad": 3, "basic-pitch": 1, "basic-pitch-savedmodel": 1}
TENANTS = {
    "acme": ("magika", "half"),
    "harbour": ("silero-vad", "magika"),
    "studio": ("basic-pitch", "basic-pitch-savedmodel"),
}
TEMPLATE = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def environment(models: Path, data: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDEMILL_")}
    return kept | {"TIDEMILL_MODELS": str(models), "TIDEMILL_DATA_DIR": str(data)}


def tidemill(words: str, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", *words.split()], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout


def demo(variables: dict[str, str]) -> str:
    """What `tidemill demo` says, up to its second call."""
    running = subprocess.Popen(
        [sys.executable, "-m", "tidemill", "demo", "--no-console"], env=variables, stdout=subprocess.PIPE, text=True
    )
    said = []
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("# the TensorFlow"):
            break
        said.append(line)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    return "".join(said).rstrip() + "\n"


def terminal(models: Path, variables: dict[str, str]) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, markup=False)

    def ran(command: str, said: str) -> None:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text(said.rstrip()))
        console.print()

    ran("tidemill ls", re.sub(r" +$", "", tidemill("ls", variables), flags=re.M))
    ran("tidemill try magika pyproject.toml", tidemill(f"try magika {HERE.parents[1] / 'pyproject.toml'}", variables))
    ran("tidemill demo", demo(variables))
    svg = console.export_svg(title="tidemill", theme=MONOKAI, code_format=TEMPLATE, unique_id="t")
    (HERE / "terminal.svg").write_text(svg, "utf-8")


async def traffic(url: str, keys: dict[str, str]) -> None:
    """Until it is cancelled."""

    async def caller(client: httpx.AsyncClient, model: str, number: int) -> None:
        inputs = sample(model)
        asked = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": KINDS[array.dtype.name],
                "data": array.ravel().tolist(),
            }
            for name, array in inputs.items()
        ]
        if model == "silero-vad" and number == 2:
            asked = asked[:1]  # somebody always forgets an input
        body = json.dumps({"inputs": asked})
        tenants = [tenant for tenant, wanted in TENANTS.items() if model in wanted]
        headers = {
            "authorization": f"Bearer {keys[tenants[number % len(tenants)]]}",
            "content-type": "application/json",
        }
        while True:
            await client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
            await asyncio.sleep(float(RANDOM.exponential(PAUSE_S[model] if len(asked) == len(inputs) else 5.0)))

    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await asyncio.gather(*(caller(client, m, n) for m, count in CALLERS.items() for n in range(count)))


KINDS = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
RANDOM = np.random.default_rng(7)


async def page(console: str, key: str, after_s: float) -> None:
    async with async_playwright() as play:
        browser = await play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = await browser.new_page(viewport={"width": 1360, "height": 900}, color_scheme="light")
        await page.goto(console)
        field = page.get_by_label("admin key")
        await field.fill(key)
        await field.press("Enter")
        await asyncio.sleep(after_s)
        await page.screenshot(path=HERE / "console.png")
        await browser.close()


async def look(models: Path, variables: dict[str, str]) -> None:
    made = {
        tenant: json.loads(tidemill(f"keys create --json --tenant {tenant}", variables))["key"] for tenant in TENANTS
    }
    admin = json.loads(tidemill("keys create --json --admin --tenant operator", variables))["key"]
    running = subprocess.Popen(
        [sys.executable, "-m", "tidemill", "serve", "--json"], env=variables, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            said += running.stdout.readline()
        told = json.loads(said)
        calling = asyncio.create_task(traffic(told["http_url"], made))
        await page(f"http://127.0.0.1:{told['console_port']}/", admin, TRAFFIC_S)
        calling.cancel()
    finally:
        running.terminate()
        running.wait(30)


def main() -> None:
    models = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as data:
        variables = environment(models, Path(data))
        terminal(models, variables)
        asyncio.run(look(models, variables))


if __name__ == "__main__":
    main()
