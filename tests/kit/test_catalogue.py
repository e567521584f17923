from __future__ import annotations

import tomllib

import msgspec
import pytest

from tidemill.core.errors import UnknownModel
from tidemill.core.package import ModelConfig
from tidemill.kit.catalogue import CATALOGUE, chosen
from tidemill.kit.samples import sample


def test_every_model_is_pinned_and_says_what_it_is() -> None:
    assert list(CATALOGUE) == [
        "half",
        "magika",
        "silero-vad",
        "basic-pitch",
        "basic-pitch-savedmodel",
        "minilm",
        "ocr-det",
        "ocr-cls",
        "ocr-rec",
        "ocr",
        "co2-forecast",
        "smollm2",
        "fashion-cnn",
    ]
    for model in CATALOGUE.values():
        assert model.licence
        assert model.description
        assert "\n" not in model.description
        assert (model.wheel is None) != (model.build is None)
        assert all(len(file.sha256) == 64 and file.size_bytes for file in model.files)
        msgspec.convert(tomllib.loads(model.config), ModelConfig)


def test_every_model_of_tensors_has_a_sample() -> None:
    assert all(sample(name) for name in CATALOGUE if name != "smollm2")


def test_names_are_chosen_in_order_and_once() -> None:
    assert [model.name for model in chosen(["magika", "half", "magika"])] == ["magika", "half"]
    assert [model.name for model in CATALOGUE.values() if model not in chosen(None)] == ["fashion-cnn"]
    assert [model.name for model in chosen(["fashion-cnn"])] == ["fashion-cnn"]
    assert chosen([]) == []


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownModel, match="'bert'; it has half, magika"):
        chosen(["half", "bert"])
