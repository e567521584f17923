"""Memory, load time and latency are taken in processes of their own, and what cannot be measured says why."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from tidemill.compress import measure, measure_child
from tidemill.compress.emit import emit
from tidemill.core.errors import RefusedModel

from . import layered

SIDE = 1200
rng = np.random.default_rng(3)
WEIGHT = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
X = {"x": rng.standard_normal((1, SIDE)).astype(np.float32)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same product as float32, with 4 bits for both engines, and with 16 values for onnxruntime alone."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: folder / f"{name}.onnx" for name in ("float", "four", "folded")}
    graph = layered.graph_of("MatMul", WEIGHT.T.copy())
    graph.write(paths["float"])
    for name, form in (("four", layered.uniform(WEIGHT, 4)), ("folded", layered.codebook(WEIGHT, 16))):
        changed = graph.copy()
        emit(changed, changed.layers()[0], form)
        changed.write(paths[name])
    return paths


def test_four_bits_are_smaller_on_disk_and_in_memory(files: dict[str, Path]) -> None:
    assert measure.size_on_disk(files["four"]) < 0.16 * measure.size_on_disk(files["float"])
    before, after = (measure.footprint(files[name], "onnxruntime", [X]) for name in ("float", "four"))
    assert before.private_bytes_needed is not None
    assert before.private_bytes_needed > 0.9 * WEIGHT.nbytes
    assert after.private_bytes_needed is not None
    assert after.private_bytes_needed < 0.5 * before.private_bytes_needed
    assert after.load_s is not None
    assert after.load_s > 0
    assert msgspec.json.decode(msgspec.json.encode(after), type=measure.Footprint) == after


def test_models_are_timed_in_turns_and_what_one_engine_cannot_read_says_why(files: dict[str, Path]) -> None:
    pytest.importorskip("openvino")
    found = measure.latency(files, {"one row": X}, rounds=9, seconds_max=20)
    by_key = {(each.model, each.engine): each for each in found}
    assert len(by_key) == 6
    first = by_key["float", "onnxruntime"]
    assert first.cpu_ratio == (1.0, 1.0, 1.0)
    four = by_key["four", "onnxruntime"]
    assert four.cpu_ratio is not None
    assert four.cpu_ratio[1] <= four.cpu_ratio[0] <= four.cpu_ratio[2]
    assert four.cpu_ratio[0] < 1
    folded = by_key["folded", "openvino"]
    assert folded.wall_ms is None
    assert "OpenVINO cannot read" in folded.reason
    assert measure.footprint(files["folded"], "openvino", [X]).reason.startswith("OpenVINO cannot read")


def test_an_engine_that_is_none_is_named_in_the_reason(files: dict[str, Path]) -> None:
    assert "'abacus'" in measure.footprint(files["four"], "abacus", [X]).reason
    found = measure.latency({"four": files["four"]}, {"one row": X}, ["abacus"], rounds=3, seconds_max=1)
    assert "'abacus'" in found[0].reason


def test_inputs_that_do_not_fit_are_a_reason(files: dict[str, Path]) -> None:
    found = measure.latency({"four": files["four"]}, {"wrong": {"x": X["x"][:, 1:]}}, ["onnxruntime"], rounds=3)
    assert "refused these inputs" in found[0].reason


def test_what_is_no_model_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no")
    with pytest.raises(RefusedModel):
        measure.size_on_disk(tmp_path / "no.onnx")


def test_memory_that_cannot_be_seen_is_none_and_never_negative() -> None:
    assert (measure_child._more(7, 5), measure_child._more(5, 5), measure_child._more(3, 5)) == (2, None, None)
