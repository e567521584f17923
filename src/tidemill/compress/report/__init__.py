"""The report of a compression as JSON, as one HTML page and as a picture; written by the command line's process."""

from __future__ import annotations

from pathlib import Path

from tidemill.compress.report.facts import Report, decode, encode

__all__ = ["FILES", "Report", "decode", "encode", "write"]

FILES = ("report.html", "report.json", "report.png")


def write(report: Report, folder: Path) -> list[Path]:
    """The three files, in `folder`, which appears when it is not there."""
    from tidemill.compress.report.page import page
    from tidemill.compress.report.picture import picture

    folder.mkdir(parents=True, exist_ok=True)
    contents = (page(report).encode(), encode(report), picture(report))
    paths = [folder / name for name in FILES]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths
