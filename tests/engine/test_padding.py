"""Sequences of different lengths in one batch. The engine sums what its mask leaves, so padding that shows is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import RefusedModel
from tidemill.core.package import Batching, ModelConfig, ModelPackage, Padding
from tidemill.core.request import InferenceRequest, Predict
from tidemill.core.tensor import Array, Signature, Tensors, TensorSpec
from tidemill.deploy import opening
from tidemill.engine.lane import Lane, LanePolicy
from tidemill.engine.padding import Padder, padder
from tidemill.engine.probe import padding_holds
from tidemill.observe.stats import ModelStats

SIGNATURE = Signature(
    (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "INT64", (-1, -1))),
    (TensorSpec("sum", "FP32", (-1,)), TensorSpec("each", "FP32", (-1, -1, 2))),
)
WISH = Padding("mask", values={"ids": 9})


class Summing:
    """`sum` of the ids in each row, `each` id twice over; heeds its mask, or does not."""

    signature = SIGNATURE

    def __init__(self, heeds: bool = True) -> None:
        self.heeds = heeds
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        ids, mask = inputs["ids"], inputs["mask"] if self.heeds else 1
        self.shapes.append(ids.shape)
        kept = (ids * mask).astype(np.float32)
        return {"sum": kept.sum(axis=1), "each": np.stack([kept, kept], axis=2)}

    def close(self) -> None:
        pass


def sequence(rows: list[list[int]]) -> dict[str, Array]:
    ids = np.array(rows, np.int64)
    return {"ids": ids, "mask": np.ones_like(ids)}


def made() -> Padder:
    return padder(SIGNATURE, WISH)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=12), st.integers(1, 16))
def test_each_is_answered_as_it_would_be_alone(sizes: list[tuple[int, int]], rows_max: int) -> None:
    asked = [
        sequence((np.arange(rows * length).reshape(rows, length) + n).tolist())
        for n, (rows, length) in enumerate(sizes)
    ]
    engine = Summing()

    async def play() -> list[Tensors]:
        lane = Lane(engine, LanePolicy(True, rows_max, 1000, 0.0, made()), ModelStats(), time.monotonic, 1.0)
        until = time.monotonic() + 60
        futures = [lane.submit(InferenceRequest("m", 1, Predict(each), "r", "c", until)) for each in asked]
        found = await asyncio.gather(*futures)
        await lane.close()
        return found

    for inputs, answer in zip(asked, asyncio.run(play()), strict=True):
        alone = Summing().predict(inputs, ())
        for name in alone:
            np.testing.assert_array_equal(answer[name], alone[name])
            assert answer[name].flags.c_contiguous


async def test_lengths_run_in_one_batch() -> None:
    engine = Summing()
    lane = Lane(engine, LanePolicy(True, 8, 1000, 0.0, made()), ModelStats(), time.monotonic, 1.0)
    until = time.monotonic() + 60
    rows = ([[1, 2, 3]], [[4, 5]], [[6, 7, 8, 9], [1, 1, 1, 1]])
    futures = [lane.submit(InferenceRequest("m", 1, Predict(sequence(each)), "r", "c", until)) for each in rows]
    found = await asyncio.gather(*futures)
    await lane.close()
    assert engine.shapes == [(4, 4)]
    assert [each["sum"].tolist() for each in found] == [[6], [9], [30, 4]]
    assert [each["each"].shape for each in found] == [(1, 3, 2), (1, 2, 2), (2, 4, 2)]


def test_whether_the_mask_is_heeded_is_found_out_by_asking() -> None:
    assert padding_holds(Summing(), made())
    assert not padding_holds(Summing(heeds=False), made())


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Padding("musk"), "names 'musk', which is no input with a free dimension 1; ids, mask are"),
        (Padding("mask", values={"id": 1}), "names 'id'"),
        (Padding("mask", axis=2), "free dimension 2; none are"),
    ],
)
def test_a_declaration_that_does_not_fit_the_model_refuses_it(wish: Padding, said: str) -> None:
    with pytest.raises(RefusedModel, match=said):
        padder(SIGNATURE, wish)


def test_a_model_that_shows_the_padding_is_served_without(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(batching=Batching(padding=WISH))
    package = ModelPackage("m", 1, Path(), "fake", 0, config)
    for heeds in (True, False):
        monkeypatch.setattr(opening.registry, "load", lambda name, heeds=heeds: lambda package, threads: Summing(heeds))
        assert (opening.open_engine("fake", package).padder is not None) == heeds
