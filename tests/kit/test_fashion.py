from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tidemill.core.errors import FetchFailed, MissingPart
from tidemill.kit import fashion, train
from tidemill.kit.fashion import LABELS, Pictures
from tidemill.kit.samples import sample
from tidemill.kit.train import Plan

SHORT = Plan(steps_max=4, batch=32, threads=1)


def drawn(rows: int, seed: int = 0) -> Pictures:
    """Ten kinds of pictures that are told at a glance, mirrored and shifted too: a bright bar, longer for each."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 10, rows)
    images = chance.integers(0, 40, (rows, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[11:17, 13 - label : 15 + label] = 250
    return Pictures(images, labels)


def logits(model: bytes, given: Pictures) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": fashion.values(given.images)})
    return np.asarray(found)


def test_idx_files_are_read() -> None:
    header = b"\0\0\x08\x02" + (2).to_bytes(4) + (3).to_bytes(4)
    assert fashion.idx(gzip.compress(header + bytes(range(6)))).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("data", [b"", b"\0\0\x08", b"\0\0\x0d\x01" + bytes(8), b"\0\0\x08\x01\0\0\0\x05abc"])
def test_what_is_no_idx_file_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(FetchFailed, match="no IDX file"):
        fashion.idx(gzip.compress(data))
    with pytest.raises(FetchFailed, match="cannot be unpacked"):
        fashion.idx(b"plain" + data)


def test_pictures_become_numbers_from_0_to_1() -> None:
    values = fashion.values(np.array([[[0, 255]]], np.uint8))
    assert values.dtype == np.float32
    assert values.tolist() == [[[[0.0, 1.0]]]]


def test_same_plan_gives_the_same_weights_and_another_seed_others() -> None:
    given, plan = drawn(64), Plan(steps_max=3, batch=16, threads=1)
    first = train.train(given, plan)
    assert train.train(given, plan) == first
    assert train.train(given, replace(plan, seed=1)) != first


def test_training_learns_and_tells_its_steps() -> None:
    steps: list[tuple[str, int, int | None]] = []
    model = train.train(drawn(1024), Plan(steps_max=50, batch=32, threads=1, rate_max=0.05), lambda *s: steps.append(s))
    test = drawn(200, seed=1)
    assert (logits(model, test).argmax(axis=1) == test.labels).mean() > 0.8
    assert [step[1:] for step in steps] == [(index + 1, 50) for index in range(50)]


def test_written_model_computes_what_torch_does() -> None:
    import torch

    chance = np.random.default_rng(0)
    network = train._Network(torch)
    for norm in network._norms.values():
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            values.copy_(torch.from_numpy(chance.uniform(0.5, 1.5, len(values)).astype(np.float32)))
    given = drawn(16)
    network.modules.eval()
    with torch.no_grad():
        wanted = network.forward(torch.from_numpy(fashion.values(given.images))).numpy()
    np.testing.assert_allclose(logits(train._onnx(network.folded()), given), wanted, rtol=1e-4, atol=1e-4)


def test_model_is_sound_compact_and_residual() -> None:
    model = onnx.load_from_string(train.train(drawn(64), Plan(steps_max=1, batch=32, threads=1)))
    onnx.checker.check_model(model, full_check=True)
    assert 100_000 < model.ByteSize() < 300_000
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("Conv") == 6
    assert ops.count("Add") == 2
    assert "BatchNormalization" not in ops


def test_model_answers_the_kits_sample() -> None:
    session = onnxruntime.InferenceSession(train.train(drawn(64), SHORT), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, sample("fashion-cnn"))
    assert found.shape == (1, len(LABELS))


def test_digest_is_of_what_is_done_not_of_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = train.digest(SHORT)
    source = Path(train.__file__).read_text()
    monkeypatch.setattr(train, "__file__", str(tmp_path / "train.py"))
    (tmp_path / "train.py").write_text("# a comment\n" + source.replace('"""', '"""In other words: ', 1))
    assert train.digest(SHORT) == told
    assert train.digest(replace(SHORT, seed=1)) != told
    (tmp_path / "train.py").write_text(source.replace("nesterov=True", "nesterov=False"))
    assert train.digest(SHORT) != told


@pytest.mark.usefixtures("empty_cache")
def test_second_time_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "pictures", lambda progress: (drawn(256), drawn(8)))
    first = train.build(plan=SHORT)
    assert first["labels.txt"].decode().split("\n")[:-1] == list(LABELS)

    def unwanted(*arguments: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(train, "train", unwanted)
    assert train.build(plan=SHORT) == first
    with pytest.raises(AssertionError):
        train.build(plan=replace(SHORT, seed=1))


def test_missing_torch_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPart, match=r"tidemill\[compress\]"):
        train.train(drawn(32), SHORT)
