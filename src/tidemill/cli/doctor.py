"""`tidemill doctor`: what this machine offers, and what is misconfigured."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, setting_options, settled, size

REFUSED = 3
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve")
PARTS = {
    "onnxruntime": "engine onnx",
    "openvino": "engine openvino",
    "nicegui": "console",
    "tritonclient": "Triton's client, for the demo",
    "opentelemetry-sdk": "traces",
}


@click.command("doctor")
@setting_options()
@json_option
def doctor_command(as_json: bool, config: Path | None, **flags: Any) -> int:
    """Tell what this machine offers and what is misconfigured; exits with 3 when something is."""
    machine = _machine()
    parts = {name: _version(name) for name in PARTS}
    problems: list[str] = []
    try:
        from tidemill.cli.looked_into import problems_of

        settings, _ = settled(flags, config)
        problems += problems_of(settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what is asked for
        problems.append(str(error))
    if as_json:
        print_json({"machine": machine, "parts": parts, "problems": problems})
    else:
        for name, value in machine.items():
            click.echo(f"{name:14} {value}")
        for name, found in parts.items():
            click.echo(f"{name:14} {found or 'not installed'}  ({PARTS[name]})")
        for problem in problems:
            click.echo(click.style(f"problem        {problem}", fg="red"))
        if not problems:
            click.echo("no problem found")
    return REFUSED if problems else 0


def _machine() -> dict[str, str]:
    import psutil

    flags = set(_cpu_flags())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "cores": f"{usable} usable of {os.cpu_count()}",
        "instructions": " ".join(name for name in INSTRUCTION_SETS if name in flags) or "unknown",
        "memory": f"{size(psutil.virtual_memory().available)} free of {size(psutil.virtual_memory().total)}",
    }


def _cpu_flags() -> list[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line.partition(":")[2].split()
    except OSError:
        return []
    return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
