"""Compile the `.proto` files of this folder into `schemas.binpb`; run by hand and by the checks, never by the service.

`python src/tidemill/core/schemas/build.py` writes it; with `--check` it writes nothing and exits 1 when the file is
stale. Needs `grpcio-tools`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "schemas.binpb"


def compiled() -> bytes:
    """The descriptor set of every `.proto` file here and of all that they import, imports first."""
    sources = sorted(path.name for path in HERE.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / TARGET.name
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", "--include_imports"]
        subprocess.run([*command, f"--descriptor_set_out={out}", *sources], check=True, timeout=60)
        return out.read_bytes()


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: build.py [--check]\n")
        return 2
    fresh = compiled()
    if not arguments:
        TARGET.write_bytes(fresh)
        return 0
    if TARGET.is_file() and TARGET.read_bytes() == fresh:
        return 0
    sys.stderr.write(f"{TARGET.name} is stale: run {Path(__file__).name} without --check\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
