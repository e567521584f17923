"""A message read by its frame says what it says when it is read whole: the law, over random messages and changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import schemas
from tidemill.core.request import Predict
from tidemill.core.schemas.datatypes import TF_NUMBERS
from tidemill.core.tensor import DTYPES
from tidemill.doors.frames import FRAME_BYTES_MAX, FRAMES_MAX, Frames
from tidemill.doors.kserve import grpc_infer
from tidemill.doors.tfserving import translate_grpc

V2 = schemas.message("inference.ModelInferRequest")
TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents", "BOOL": "bool_contents"}


def v2(
    datatype: str, shape: tuple[int, ...], seed: int, id: str = "", typed: bool = False, name: str = "x", **more: Any
) -> bytes:
    array = numbers(datatype, shape, seed)
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if typed:
        tensor["contents"] = {TYPED[datatype]: array.ravel().tolist()}
        return bytes(V2(model_name="m", id=id, inputs=[tensor], **more).SerializeToString())
    message = V2(model_name="m", id=id, inputs=[tensor], raw_input_contents=[array.tobytes()], **more)
    return bytes(message.SerializeToString())


def numbers(datatype: str, shape: tuple[int, ...], seed: int) -> Any:
    draw = np.random.default_rng(seed)
    if datatype == "BOOL":
        return draw.integers(0, 2, shape).astype(bool)
    return draw.integers(0, 100, shape).astype(DTYPES[datatype])


def same(work: Predict, other: Predict) -> bool:
    if work.outputs != other.outputs or work.inputs.keys() != other.inputs.keys():
        return False
    pairs = [(work.inputs[name], other.inputs[name]) for name in work.inputs]
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) and a.flags.aligned for a, b in pairs)


def through(frames: Frames[Any], read: Any, body: bytes) -> bool:
    """Whether `body` was known by its frame; what it says is held against the message read whole."""
    about, work = read(body)
    frame = frames.find(body)
    if frame is None:
        frames.learn(body, about, work)
        return False
    assert frame.about == about
    assert same(frame.work(body), work)
    return True


TFS = schemas.message("tensorflow.serving.PredictRequest")
TFS_TYPED = {"FP32": "float_val", "FP64": "double_val", "INT64": "int64_val", "BOOL": "bool_val"}


def tfs(datatype: str, shape: tuple[int, ...], seed: int, typed: bool = False, name: str = "x", **more: Any) -> bytes:
    array = numbers(datatype, shape, seed)
    proto: dict[str, Any] = {"dtype": TF_NUMBERS[datatype], "tensor_shape": {"dim": [{"size": n} for n in shape]}}
    values = {TFS_TYPED[datatype]: array.ravel().tolist()} if typed else {"tensor_content": array.tobytes()}
    return bytes(TFS(inputs={name: proto | values}, **more).SerializeToString())


def tfs_read(body: bytes) -> tuple[translate_grpc.Asked, Predict]:
    message = TFS.FromString(body)
    return translate_grpc.asked(message.model_spec), translate_grpc.predict(message, 1 << 20)


tfs_messages = st.builds(
    tfs,
    st.sampled_from(["FP32", "FP64", "INT64", "BOOL"]),
    st.sampled_from([(1,), (2, 2), (1, 4), (2, 1, 2), (4,), ()]),
    st.integers(0, 9),
    typed=st.booleans(),
    name=st.sampled_from(["x", "y", "xx"]),
    model_spec=st.sampled_from([{"name": "m"}, {"name": "m", "signature_name": "s"}, {"version": {"value": 2}}]),
    output_filter=st.sampled_from([[], ["a"], ["b"]]),
)


messages = st.builds(
    v2,
    st.sampled_from(["FP32", "FP64", "INT64", "BOOL"]),
    st.sampled_from([(1,), (2, 2), (1, 4), (2, 1, 2), (4,), ()]),
    st.integers(0, 9),
    id=st.sampled_from(["", "a", "b"]),
    typed=st.booleans(),
    name=st.sampled_from(["x", "y", "xx"]),
    model_version=st.sampled_from(["", "1"]),
    outputs=st.sampled_from([[], [{"name": "y"}], [{"name": "z"}]]),
)


DIALECTS = pytest.mark.parametrize(
    ("read", "drawn"), [(grpc_infer._read, messages), (tfs_read, tfs_messages)], ids=["v2", "tfs"]
)


@DIALECTS
@given(data=st.data())
def test_what_a_frame_says_is_what_the_message_says(read: Any, drawn: Any, data: st.DataObject) -> None:
    frames = Frames(read)
    for body in data.draw(st.lists(drawn, max_size=30)):
        through(frames, read, body)


@DIALECTS
@given(data=st.data())
def test_a_message_that_was_changed_anywhere_is_not_taken_for_what_it_was(
    read: Any, drawn: Any, data: st.DataObject
) -> None:
    frames, body = Frames(read), data.draw(drawn)
    for _ in range(2):
        through(frames, read, body)
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    changed = body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]
    frame = frames.find(changed)
    if frame is not None:
        about, work = read(changed)
        assert (frame.about, same(frame.work(changed), work)) == (about, True)


@pytest.mark.parametrize(("made", "read"), [(v2, grpc_infer._read), (tfs, tfs_read)], ids=["v2", "tfs"])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_the_third_of_a_kind_is_known_by_its_frame(made: Any, read: Any, datatype: str, typed: bool) -> None:
    frames = Frames(read)
    known = [through(frames, read, made(datatype, (3, 5), seed, typed=typed)) for seed in range(4)]
    assert known == [False, False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        v2("BOOL", (4,), 1),  # a byte that is neither 0 nor 1 is refused
        v2("INT64", (4,), 1, typed=True),  # numbers of any length
        v2("FP32", (0,), 1),
        v2("FP32", (1,), 1, id="i" * FRAME_BYTES_MAX),
    ],
    ids=["bools", "varints", "nothing", "a long frame"],
)
def test_what_has_no_bytes_of_its_own_is_read_each_time(body: bytes) -> None:
    frames = Frames(grpc_infer._read)
    assert not any(through(frames, grpc_infer._read, body) for _ in range(4))


def test_ids_of_ones_own_are_read_each_time() -> None:
    frames = Frames(grpc_infer._read)
    assert not any(through(frames, grpc_infer._read, v2("FP32", (4,), 1, id=f"{n:04}")) for n in range(20))


def test_frames_are_bounded() -> None:
    frames = Frames(grpc_infer._read)
    for size in range(1, 2 * FRAMES_MAX):
        for seed in range(2):
            through(frames, grpc_infer._read, v2("FP32", (size,), seed))
    assert len(frames._known) <= FRAMES_MAX
    assert len(frames._seen) <= FRAMES_MAX
