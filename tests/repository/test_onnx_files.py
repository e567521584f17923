"""A model's file may point anywhere: what it claims is held against what lies beside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crafted
from crafted import HIDING_PLACES, pointing, save, with_weights
from tidemill.core.errors import RefusedModel
from tidemill.repository.onnx_files import check

GOOD = crafted.identity().SerializeToString()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for a model, beside a file that is none of its business."""
    (tmp_path / "secret").write_bytes(bytes(16))
    made = tmp_path / "model"
    made.mkdir()
    (made / "weights.bin").write_bytes(bytes(16))
    return made


def refused(path: Path, reason: str) -> None:
    with pytest.raises(RefusedModel, match=reason) as caught:
        check(path)
    assert str(path) in caught.value.message


def test_size_is_that_of_the_model_with_its_data(folder: Path) -> None:
    path = save(folder, crafted.identity())
    assert check(path)[0] == path.stat().st_size
    path = save(folder, with_weights(pointing("weights.bin")))
    assert check(path)[0] == path.stat().st_size + 16


def test_data_in_a_folder_below_is_welcome(folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "parts" / "w").write_bytes(bytes(20))
    check(save(folder, with_weights(pointing("./parts/w", offset="4"))))


def test_data_shared_by_two_tensors_is_counted_once(folder: Path) -> None:
    made = with_weights(pointing("weights.bin"))
    made.graph.initializer.append(pointing("weights.bin"))
    path = save(folder, made)
    assert check(path)[0] == path.stat().st_size + 16


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08", GOOD[:-1], GOOD[:10], b"\0" * 100, b"\xff" * 100])
def test_corrupt_truncated_and_empty_files_are_refused(folder: Path, content: bytes) -> None:
    path = folder / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX model")


@settings(deadline=None)
@given(content=st.binary(max_size=80), cut=st.integers(0, len(GOOD)))
def test_no_bytes_bring_it_down(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(GOOD[:cut] + content)
    with suppress(RefusedModel):
        check(path)


@pytest.mark.parametrize("name", ["model.json", "model.onnxtxt", "model.textproto", "model"])
def test_name_does_not_choose_the_reader(folder: Path, name: str) -> None:
    assert check(save(folder, crafted.identity(), name))[0] == len(GOOD)


def test_graph_without_nodes_or_without_outputs_is_refused(folder: Path) -> None:
    for field in ("node", "output"):
        made = crafted.identity()
        made.graph.ClearField(field)
        refused(save(folder, made), "no graph")


def test_file_that_is_gone_is_refused(folder: Path) -> None:
    refused(folder / "gone.onnx", "gone.onnx")


@pytest.mark.parametrize("where", ["gone.bin", "parts/gone", "x" * 300, ".", "weights.bin/x"])
def test_missing_data_is_refused(folder: Path, where: str) -> None:
    refused(save(folder, with_weights(pointing(where))), "weights")


@pytest.mark.parametrize(
    "where",
    [
        "../secret",
        "parts/../../secret",
        "..",
        "/etc/passwd",
        "/",
        "./../secret",
        "../model2/w",
        "*/_ORT_MEM_ADDR_/*",
        "",
    ],
)
def test_data_outside_the_folder_is_refused(folder: Path, where: str) -> None:
    (folder.parent / "model2").mkdir()
    (folder.parent / "model2" / "w").write_bytes(bytes(16))
    refused(save(folder, with_weights(pointing(where))), "outside the model's folder")


def test_data_that_says_where_by_no_word_is_refused(folder: Path) -> None:
    refused(save(folder, with_weights(pointing("", location=False))), "outside")


def test_absolute_path_is_refused_even_into_the_folder(folder: Path) -> None:
    refused(save(folder, with_weights(pointing(str(folder / "weights.bin")))), "outside")


def test_place_of_memory_is_refused_even_where_a_file_has_its_name(folder: Path) -> None:
    file = folder / "*" / "_ORT_MEM_ADDR_" / "*"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(64))
    refused(save(folder, with_weights(pointing("*/_ORT_MEM_ADDR_/*", offset="0"))), "outside")


def test_link_that_leaves_the_folder_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("../secret")
    (folder / "way").symlink_to(folder.parent)
    for where in ("link", "way/secret", "way/model/../secret"):
        refused(save(folder, with_weights(pointing(where))), "outside")


def test_link_within_the_folder_is_followed_and_a_loop_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("weights.bin")
    check(save(folder, with_weights(pointing("link"))))
    (folder / "loop").symlink_to("loop")
    refused(save(folder, with_weights(pointing("loop"))), "weights")


def test_name_with_a_nul_is_refused(folder: Path) -> None:
    refused(save(folder, with_weights(pointing("weights.bin\0.txt"))), "weights")


@pytest.mark.parametrize(
    ("offset", "length"),
    [("1", "16"), ("0", "17"), ("17", "0"), ("-1", "4"), ("0", "-1"), ("x", "16"), ("0", ""), ("1e3", "1"),
     ("0", "99999999999999999999"), ("0", "9" * 5000), ("99999999999999999999", None)],
)  # fmt: skip
def test_data_that_is_too_short_or_measured_oddly_is_refused(folder: Path, offset: str, length: str | None) -> None:
    refused(save(folder, with_weights(pointing("weights.bin", offset=offset, length=length))), "weights")


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_data_is_looked_for_wherever_it_may_hide(folder: Path, place: str) -> None:
    check(save(folder, crafted.hidden(pointing("weights.bin"), place)))
    refused(save(folder, crafted.hidden(pointing("../secret"), place)), "outside")


def test_data_is_looked_for_at_any_depth(folder: Path) -> None:
    inner = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["z"])], "inner", [], [])
    inner.initializer.append(pointing("../secret"))
    for _ in range(15):
        node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner)
        inner = onnx.helper.make_graph([node], "outer", [], [])
    made = crafted.identity()
    made.graph.node.extend(inner.node)
    refused(save(folder, made), "outside")


def test_model_whose_time_values_decide_is_told_from_one_whose_shapes_do(folder: Path) -> None:
    assert check(save(folder, crafted.identity()))[1]
    node = onnx.helper.make_node("Range", ["start", "limit", "delta"], ["y"])
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, []) for name in node.input]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT64, ["n"])]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "range", inputs, outputs))
    assert not check(save(folder, model, "range.onnx"))[1]
