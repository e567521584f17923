from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from tidemill.core.errors import FetchFailed, UnknownModel
from tidemill.kit import datasets, fashion
from tidemill.kit.datasets import DATASETS, data, resolve
from tidemill.kit.fashion import Pictures


def test_lee_texts_lie_line_by_line_with_what_people_say_beside_them() -> None:
    texts = data("lee.txt").read_text("utf-8").splitlines()
    labels = np.load(data("lee_similarities"))
    assert data("lee_similarities") == data("lee.txt").with_name("lee.labels.npy")
    assert len(texts) == 50
    assert labels.shape == (50, 50)
    assert (labels == labels.T).all()
    assert (np.diag(labels) == 1).all()
    assert labels.min() == pytest.approx(0.2)
    assert len(data("lee_background.txt").read_text("utf-8").splitlines()) == 300


def test_second_time_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    path = data("lee.txt")

    def unplugged(*arguments: Any, **named: Any) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", unplugged)
    assert data("lee.txt") == path


@pytest.mark.usefixtures("empty_cache")
def test_pictures_hold_out_the_whole_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(progress: object) -> tuple[Pictures, Pictures]:
        return tuple(Pictures(np.full((rows, 28, 28), rows % 251, np.uint8), np.arange(rows)) for rows in (5_000, 70))  # type: ignore[return-value]

    monkeypatch.setattr(fashion, "pictures", pictures)
    with np.load(data("fashion")) as found:
        assert found["image"].shape == (4_070, 1, 28, 28)
        assert found["image"].dtype == np.float32
        assert found["held"].sum() == 70
        assert found["labels"][found["held"]].tolist() == list(range(70))
        assert len(set(found["labels"][~found["held"]].tolist())) == 4_000


@pytest.mark.usefixtures("empty_cache")
def test_other_texts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "members", lambda wheel, names, progress: dict.fromkeys(names, b"other"))
    with pytest.raises(FetchFailed, match=r"lee\.cor of gensim==4\.4\.0 is refused"):
        data("lee.txt")


def test_unknown_data_lists_the_known() -> None:
    with pytest.raises(UnknownModel, match=r"'imagenet'; it has lee\.txt"):
        data("imagenet")


def test_bare_name_is_the_kits_unless_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("lee.txt") == str(data("lee.txt"))
    assert resolve("other.txt") == "other.txt"
    (tmp_path / "lee.txt").write_text("mine")
    assert resolve("lee.txt") == "lee.txt"


def test_every_dataset_says_what_it_is() -> None:
    assert all(each.description for each in DATASETS.values())
