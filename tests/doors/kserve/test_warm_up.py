"""`[[warm_up]]` of tidemill.toml and `model_warmup` of config.pbtxt, made into requests and sent before a model
serves."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_models
from tidemill.assemble import fleet_policy
from tidemill.core.contracts import WarmUpRequest
from tidemill.core.errors import RefusedModel
from tidemill.core.package import Batching, ModelConfig, ModelPackage, WarmUp, WarmUpInput
from tidemill.core.settings import Settings
from tidemill.core.tensor import DTYPES, Signature, TensorSpec
from tidemill.deploy.local import LocalFleet, State
from tidemill.doors.kserve import warm_up
from tidemill.repository import layout

BYTES_MAX = 1000
SECRET = b"\x00\x00\x80\x3f" * 2


def signature(datatype: str = "FP32", *shape: int) -> Signature:
    return Signature((TensorSpec("x", datatype, shape or (-1, 2)),), (TensorSpec("y", datatype, (-1, 2)),))


def asked(
    *samples: WarmUp, served: Signature | None = None, place: Path | None = None, batched: bool | None = None
) -> list[WarmUpRequest]:
    config = ModelConfig(warm_up=samples, batching=Batching(batched=batched))
    package = ModelPackage("m", 1, Path("nowhere"), "onnx", 0, config, place=place)
    return list(warm_up.requests(package, served or signature(), BYTES_MAX))


def one(datatype: str = "FP32", shape: tuple[int, ...] = (2,), rows: int = 1, **more: Any) -> WarmUp:
    return WarmUp({"x": WarmUpInput(datatype, shape, **more)}, "w", rows)


@pytest.mark.parametrize("data", ["zeros", "random"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_values_of_every_datatype_are_made_up(datatype: str, data: Any) -> None:
    (request,) = asked(one(datatype, rows=3, data=data), served=signature(datatype))
    x = request.work.inputs["x"]
    assert (x.dtype, x.shape, x.flags.c_contiguous, request.must) == (DTYPES[datatype], (3, 2), True, False)
    if datatype == "BYTES":
        assert set(x.ravel()) == {b""}
    elif data == "zeros":
        assert not x.astype(np.float64).any()
    elif x.dtype.kind in "iub":
        assert set(x.ravel().tolist()) <= {0, 1}
    else:
        assert np.isfinite(x.astype(np.float64)).all()
        assert x.astype(np.float64).any()
    assert (x == x[:1]).all()  # each row of the batch is the one that was told


def test_model_without_a_batch_dimension_gets_the_shape_as_it_stands() -> None:
    fixed = signature("FP32", 2, 3)
    (request,) = asked(one(shape=(2, 3)), served=fixed)
    assert request.work.inputs["x"].shape == (2, 3)
    with pytest.raises(RefusedModel, match="'w': it has 4 rows, and the model no batch dimension"):
        asked(one(shape=(2, 3), rows=4), served=fixed)
    (request,) = asked(one(shape=(4, 2)), batched=False)
    assert request.work.inputs["x"].shape == (4, 2)


@given(rows=st.integers(1, 4), width=st.integers(1, 4), data=st.data())
def test_file_is_one_row_of_the_batch(
    tmp_path_factory: pytest.TempPathFactory, rows: int, width: int, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("m") / "1"
    (place.parent / "warmup").mkdir()
    place.mkdir()
    values = data.draw(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=width, max_size=width))
    (place.parent / "warmup" / "raw").write_bytes(struct.pack(f"<{width}h", *values))
    sample = one("INT16", (width,), rows, file="raw")
    (request,) = asked(sample, served=signature("INT16", -1, width), place=place)
    assert request.work.inputs["x"].tolist() == [values] * rows


def test_strings_of_a_file_stand_behind_their_lengths(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "raw").write_bytes(struct.pack("<I", 4) + b"tide" + struct.pack("<I", 0))
    (request,) = asked(one("BYTES", rows=2, file="raw"), served=signature("BYTES"), place=tmp_path)
    assert request.work.inputs["x"].tolist() == [[b"tide", b""]] * 2


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, with files in `warmup` and beside it."""
    folder = tmp_path / "models" / "m"
    (folder / "warmup" / "deep").mkdir(parents=True)
    (folder / "1").mkdir()
    for path in (tmp_path / "secret", folder / "secret", folder / "warmup" / "deep" / "fine"):
        path.write_bytes(SECRET)
    (folder / "warmup" / "link").symlink_to(tmp_path / "secret")
    (folder / "warmup" / "ring").symlink_to("ring")
    (folder / "warmup" / "short").write_bytes(SECRET[:-1])
    (folder / "warmup" / "long").write_bytes(bytes(BYTES_MAX + 1))
    return folder


def test_file_may_lie_in_a_folder_of_its_own(model: Path) -> None:
    (request,) = asked(one(file="deep/fine"), place=model / "1")
    assert request.work.inputs["x"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("../secret", "is no file in .*warmup; what lies elsewhere is not read"),
        ("deep/../../secret", "what lies elsewhere is not read"),
        ("link", "what lies elsewhere is not read"),
        ("deep", "is no file in"),
        ("gone", "cannot be read"),
        ("ring", "cannot be read"),
        ("nul\0", "cannot be read"),
        ("short", "'x' has 7 bytes, its shape wants 2 values of FP32"),
        ("long", "has 1001 bytes, more than a request"),
    ],
)
def test_file_that_is_none_or_leaves_its_folder_is_not_read(model: Path, file: str, match: str) -> None:
    with pytest.raises(RefusedModel, match=match):
        asked(one(file=file), place=model / "1")
    with pytest.raises(RefusedModel, match="what lies elsewhere is not read"):
        asked(one(file=str(model.parent.parent / "secret")), place=model / "1")


def test_bare_file_has_no_folder_for_data() -> None:
    with pytest.raises(RefusedModel, match="a bare file has no folder"):
        asked(one(file="raw"), place=None)


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        (one("FP8"), "'w': input 'x' has datatype 'FP8'; BOOL, UINT8"),
        (one("INT64"), "input 'x' has datatype INT64, expected FP32"),
        (one(shape=(3,)), r"input 'x' has shape \[1, 3\]"),
        (one(shape=(0,) * 65), "65 dimensions, at most 64"),
        (one(shape=(251,)), "more bytes than a request"),
        (one(shape=(2,), rows=200), "more bytes than a request"),
        (one(shape=(2**31 - 1,) * 9), "more bytes than a request"),
        (one(shape=(0, *(2**31 - 1,) * 9)), "more bytes than a request"),
        (WarmUp({"z": WarmUpInput("FP32", (2,))}), "warm-up request 1: input 'x' is missing"),
        (WarmUp({}), "input 'x' is missing"),
    ],
)
def test_request_that_cannot_be_made_is_named_with_the_reason(sample: WarmUp, match: str) -> None:
    with pytest.raises(RefusedModel, match=match):
        asked(sample)


# -- through the model -------------------------------------------------------------------------------------------------

TOML = """
[[warm_up]]
rows = 4
count = 2
[warm_up.inputs.x]
datatype = "{}"
{}data = "random"
"""
PBTXT = """
max_batch_size: 8
model_warmup {{ batch_size: 4 inputs {{ key: "x" value {{ data_type: TYPE_INT64 dims: [] {} }} }} }}
"""


async def loaded(folder: Path) -> tuple[State, str, int]:
    fleet = LocalFleet(fleet_policy(Settings()))
    try:
        replica = await fleet.load(layout.package("m", 1, folder / "1"))
        return replica.state, replica.reason, replica.warmed
    finally:
        await fleet.close()


async def test_requests_of_both_files_are_answered_before_the_model_serves(tmp_path: Path) -> None:
    """The model looks its input up in a table, so a file of large numbers is no input for it."""
    small_models.save(tmp_path, "m", small_models.poison())
    folder = tmp_path / "m"
    (folder / "tidemill.toml").write_text(TOML.format("INT64", ""))
    assert await loaded(folder) == (State.AVAILABLE, "", 1)
    (folder / "tidemill.toml").unlink()
    (folder / "config.pbtxt").write_text(PBTXT.format("zero_data: true"))
    assert await loaded(folder) == (State.AVAILABLE, "", 1)


async def test_request_that_the_model_refuses_is_told_and_the_model_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_models.save(tmp_path, "m", small_models.poison())
    folder = tmp_path / "m"
    (folder / "warmup").mkdir()
    (folder / "warmup" / "far").write_bytes(struct.pack("<q", 10**6))
    (folder / "config.pbtxt").write_text(PBTXT.format('input_data_file: "far"'))
    assert await loaded(folder) == (State.AVAILABLE, "", 0)
    assert "warm-up request 1: " in caplog.text


async def test_request_that_cannot_be_made_fails_the_load(tmp_path: Path) -> None:
    small_models.save(tmp_path, "m", small_models.poison())
    (tmp_path / "m" / "tidemill.toml").write_text(TOML.format("FP32", ""))
    state, reason, _ = await loaded(tmp_path / "m")
    assert state is State.FAILED
    assert "warm-up request 1: input 'x' has datatype FP32, expected INT64" in reason
