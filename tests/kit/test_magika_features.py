from __future__ import annotations

import gzip
import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import WrongValue
from tidemill.kit import magika_features
from tidemill.kit.magika_features import PADDING, features

PYTHON = b'''"""Counts words."""
import sys
from collections import Counter


def count(path: str) -> Counter[str]:
    with open(path, encoding="utf-8") as file:
        return Counter(file.read().split())


if __name__ == "__main__":
    for word, times in count(sys.argv[1]).most_common(10):
        print(f"{times:6} {word}")
'''
SHELL = b"""#!/bin/bash
set -euo pipefail
for file in "$@"; do
    if [ -f "$file" ]; then
        echo "packing $file"
        tar -czf "${file%.*}.tar.gz" "$file"
    fi
done
"""
C = b"""#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv) {
    int values[4] = {3, 1, 2, 0};
    qsort(values, 4, sizeof(int), compare);
    for (int i = 0; i < 4; i++) printf("%d\\n", values[i]);
    return EXIT_SUCCESS;
}
"""
HTML = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Tides</title></head>
<body><h1>High water</h1><p>The next tide comes at <b>six</b>.</p><ul><li>Dover</li><li>Brest</li></ul></body></html>
"""
JSON = b'{"name": "mill", "wheels": [{"id": 1, "turns": 12.5}, {"id": 2, "turns": null}], "open": true, "note": "ok"}\n'
XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<catalogue><book id="1"><title>Tides</title><price currency="EUR">12.50</price></book>
<book id="2"><title>Mills</title><price currency="EUR">8.00</price></book></catalogue>
"""
MARKDOWN = b"""# Tide mills

A tide mill is a water mill driven by the rise and fall of the tide.

## How it works

1. The **sluice** opens with the flood.
2. The *mill pond* fills; see [the drawing](pond.png).

- `gate.open()` lets water in
- `gate.close()` keeps it

```python
gate.open()
```
"""
CSV = b"station,date,height_m,coefficient\n" + b"".join(
    b"Brest,2024-03-%02d,%d.%d,%d\n" % (day, 4 + day % 4, day % 10, 40 + 2 * day) for day in range(1, 29)
)


def png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(side)) for y in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/mill.txt", "the mill turns with the tide\n" * 20)
        archive.writestr("notes/pond.png", png(16))
    return packed.getvalue()


FILES = {
    "python": PYTHON,
    "shell": SHELL,
    "c": C,
    "html": HTML,
    "json": JSON,
    "xml": XML,
    "markdown": MARKDOWN,
    "csv": CSV,
    "png": png(64),
    "gzip": gzip.compress(C * 20, mtime=0),
    "zip": zipped(),
    "elf": Path(sys.executable).resolve().read_bytes(),
}


@pytest.fixture(scope="module")
def session(kit: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(kit / "magika/1/model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def labels(kit: Path) -> tuple[str, ...]:
    return magika_features.labels(kit / "magika/1")


@pytest.mark.parametrize("kind", FILES)
def test_real_files_get_their_type(session: onnxruntime.InferenceSession, labels: tuple[str, ...], kind: str) -> None:
    (scores,) = session.run(None, {"bytes": features(FILES[kind])[np.newaxis]})
    told, score = magika_features.answer(scores[0], labels)
    assert told == kind
    assert score > 0.5


def test_labels_are_as_many_as_the_outputs(session: onnxruntime.InferenceSession, labels: tuple[str, ...]) -> None:
    assert len(labels) == session.get_outputs()[0].shape[1] == 214


def test_short_content_is_padded_between_its_two_ends() -> None:
    tokens = features(b"  \n 0123456789 \t")
    assert tokens.dtype == np.int32
    assert tokens.shape == (2048,)
    # Only the outer edge is stripped: the head keeps the white space at its end, the tail that at its beginning.
    assert bytes(tokens[:12].astype(np.uint8)) == b"0123456789 \t"
    assert bytes(tokens[-14:].astype(np.uint8)) == b"  \n 0123456789"
    assert (tokens[12:-14] == PADDING).all()


def test_long_content_gives_the_first_and_last_kilobyte() -> None:
    content = bytes(1 + i % 8 for i in range(10_000))
    tokens = features(content)
    assert bytes(tokens[:1024].astype(np.uint8)) == content[:1024]
    assert bytes(tokens[1024:].astype(np.uint8)) == content[-1024:]


def test_white_space_is_stripped_within_a_block_only() -> None:
    assert (features(b" " * 4000 + b"x" * 10_000)[96:1024] == PADDING).all()


@pytest.mark.parametrize("content", [b"", b"1234567", b" " * 100 + b"1234567"])
def test_too_little_content_is_refused(content: bytes) -> None:
    with pytest.raises(WrongValue, match="too few"):
        features(content)


@given(content=st.binary(max_size=9000))
def test_file_of_any_size_is_read_at_its_ends_only(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = b"x" * 8 + content
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    assert (magika_features.file_features(path) == features(content)).all()
