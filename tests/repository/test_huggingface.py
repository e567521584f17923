"""Hugging Face's folders and those of OpenVINO's IR: known, and refused with what is wrong with them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from crafted_huggingface import genai as made_genai
from crafted_huggingface import huggingface as made
from crafted_huggingface import safetensors
from tidemill.core.errors import RefusedModel
from tidemill.repository import formats, genai, huggingface, layout


def test_a_whole_one_is_known_and_read(tmp_path: Path) -> None:
    folder = made(tmp_path / "m")
    found = formats.recognise(folder)
    assert found is not None
    assert (found.format, found.path) == ("huggingface", folder)
    source = huggingface.read(folder)
    assert source.architectures == ("LlamaForCausalLM",)
    assert [each.name for each in source.weights] == ["model.safetensors"]
    assert layout.package("m", 1, folder).format == "huggingface"
    assert layout.versions(folder) == {1: folder}


def test_weights_in_several_files_are_those_that_the_index_names(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors(b"\1" * 8))
    names = [f"model-0000{each}-of-00002.safetensors" for each in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    assert [each.name for each in huggingface.read(folder).weights] == names
    (folder / names[1]).unlink()
    with pytest.raises(RefusedModel, match="1 of 2 files"):
        huggingface.read(folder)


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors()[:-1])


def header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def torn(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{{{{" + b"\0" * 16)


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def strange_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff{")


def leading_out(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../model.safetensors"}}))


def no_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "cut short"),
        (header, "cut short"),
        (torn, "header"),
        (empty, "cut short"),
        (pickled, "a pickle"),
        (strange_config, "JSON"),
        (broken_config, "JSON"),
        (leading_out, "no file beside it"),
        (no_map, "weight_map"),
    ],
)
def test_what_is_missing_broken_or_a_pickle_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = made(tmp_path / "m")
    spoil(folder)
    with pytest.raises(RefusedModel, match=words):
        layout.package("m", 1, folder)


def test_a_folder_with_a_model_of_another_format_is_that(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / "model.onnx").write_bytes(b"\x08\x07\x12\x00")
    found = formats.recognise(folder)
    assert found is not None
    assert found.format == "onnx"


def test_a_folder_of_ir_is_known_and_its_tensors_can_be_named(tmp_path: Path) -> None:
    folder = made_genai(tmp_path / "m")
    found = formats.recognise(folder)
    assert found is not None
    assert (found.format, found.path) == ("genai", folder)
    assert genai.read(folder).context_tokens == 512
    assert layout.package("m", 1, folder).size_bytes > 0
    (folder / "tidemill.toml").write_text('file = "openvino_model.xml"')
    assert layout.package("m", 1, folder).format == "openvino"


@pytest.mark.parametrize("name", ["openvino_detokenizer.xml", "openvino_model.bin", "config.json"])
def test_a_folder_of_ir_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    folder = made_genai(tmp_path / "m")
    (folder / name).unlink()
    with pytest.raises(RefusedModel, match=name):
        layout.package("m", 1, folder)


@pytest.mark.parametrize(
    "said", [{"n_positions": 64}, {"text_config": {"max_position_embeddings": 64}}, {"max_position_embeddings": 64}]
)
def test_context_is_found_under_each_of_its_names(tmp_path: Path, said: dict[str, object]) -> None:
    folder = made_genai(tmp_path)
    (folder / "config.json").write_text(json.dumps(said))
    assert genai.read(folder).context_tokens == 64


@pytest.mark.parametrize("said", [{}, {"n_positions": 0}, {"n_positions": True}, {"n_positions": "64"}])
def test_a_context_that_is_not_told_is_asked_for(tmp_path: Path, said: dict[str, object]) -> None:
    folder = made_genai(tmp_path)
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(RefusedModel, match="max_position_embeddings"):
        genai.read(folder)


def test_template_is_the_file_or_what_the_tokenizer_says(tmp_path: Path) -> None:
    folder = made_genai(tmp_path)
    assert genai.template(folder) == ""
    said = folder / "tokenizer_config.json"
    said.write_text(json.dumps({"chat_template": "one"}))
    assert genai.template(folder) == "one"
    several = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    said.write_text(json.dumps({"chat_template": several}))
    assert genai.template(folder) == "three"
    (folder / "chat_template.jinja").write_text("four")
    assert genai.template(folder) == "four"
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(RefusedModel):
        genai.template(folder)
