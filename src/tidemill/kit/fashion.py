"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 labelled pictures of clothes, out of Debian; any process."""

from __future__ import annotations

import gzip
import zlib
from typing import Final, NamedTuple

import numpy as np

from tidemill.core.errors import FetchFailed
from tidemill.core.tensor import Array
from tidemill.kit.debian import DebianPackage, package_file, unpack
from tidemill.kit.fetch import Progress, silent

SIDE: Final = 28
LABELS: Final = (
    "T-shirt", "Trousers", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

PACKAGE: Final = DebianPackage(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    filename="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    size_bytes=30_900_652,
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)

_FOLDER = "usr/share/datasets/fashion-mnist"


class Pictures(NamedTuple):
    """`images` uint8 [rows, 28, 28], 0 the background; `labels` int64 [rows], places in `LABELS`."""

    images: Array
    labels: Array


def pictures(progress: Progress = silent) -> tuple[Pictures, Pictures]:
    """The 60,000 to train on and the 10,000 to test on. Raises `FetchFailed`."""
    names = [
        f"{_FOLDER}/{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    files = unpack(package_file(PACKAGE, progress), names)
    images, labels, test_images, test_labels = (idx(files[name]) for name in names)
    return Pictures(images, labels.astype(np.int64)), Pictures(test_images, test_labels.astype(np.int64))


def values(images: Array) -> Array:
    """What the model `fashion-cnn` takes: float32 [rows, 1, 28, 28] from 0 to 1."""
    return np.asarray(images[:, np.newaxis] / np.float32(255), np.float32)


def idx(data: bytes) -> Array:
    """The array in a gzipped IDX file of bytes. Raises `FetchFailed`."""
    try:
        plain = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FetchFailed(f"an IDX file cannot be unpacked: {error}") from error
    rank = plain[3] if plain[:3] == b"\0\0\x08" and len(plain) > 3 else 0
    shape = tuple(np.frombuffer(plain[4 : 4 + 4 * rank], ">u4").astype(int)) if len(plain) >= 4 + 4 * rank else ()
    if not rank or np.prod(shape, dtype=object) != len(plain) - 4 - 4 * rank:
        raise FetchFailed(f"{len(plain)} bytes that begin with {plain[:4].hex()} are no IDX file of bytes")
    return np.frombuffer(plain, np.uint8, offset=4 + 4 * rank).reshape(shape)
