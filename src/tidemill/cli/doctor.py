"""`tidemill doctor`: what this machine offers, and what is misconfigured."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import REFUSED, json_option, print_json, setting_options, settled, size

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve")
PARTS = {
    "onnxruntime": "engine onnx",
    "openvino": "engine openvino",
    "openvino-genai": "engine generate: language models",
    "tensorflow": "engine tensorflow",
    "tokenizers": "texts and their tokens",
    "pillow": "pictures",
    "uvloop": "the loop",
    "pygrpc-native": "grpc_native: gRPC at less cost",
    "nicegui": "console",
    "tritonclient": "Triton's client, for the demo",
    "opentelemetry-sdk": "traces",
}


@click.command("doctor")
@setting_options()
@click.option("--load", is_flag=True, help="Open each model on its engine too, one after the other.")
@json_option
def doctor_command(load: bool, as_json: bool, config: Path | None, **flags: Any) -> int:
    """Tell what this machine offers and what is misconfigured; exits with 3 when something is."""
    machine = _machine()
    parts = {name: _version(name) for name in PARTS}
    problems: list[str] = []
    try:
        from tidemill.cli.looked_into import problems_of
        from tidemill.cli.repository import missing

        settings, origins = settled(flags, config)
        problems += [gone] if (gone := missing(settings, origins)) else []
        problems += problems_of(settings, load)
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
        "onnxruntime's": _providers(),
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


def _providers() -> str:
    try:
        import onnxruntime
    except ImportError as error:
        return f"no providers: {error}"
    return " ".join(onnxruntime.get_available_providers())


def _version(package: str) -> str | None:
    for name in OTHER_NAMES.get(package, (package,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


OTHER_NAMES = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
"""What else brings a part."""
