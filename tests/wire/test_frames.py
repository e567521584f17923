"""Frames and the tensors in them: what is sent arrives, and garbage never crashes or takes more than it brings."""

from __future__ import annotations

import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidemill.core.errors import FrameTooLarge
from tidemill.core.tensor import DTYPES, Array
from tidemill.wire.frames import ALIGN, HEAD, VERSION, Frame, FrameError, FrameReader, Kind, pack
from tidemill.wire.tensors import COPIED_BYTES_MAX, pack_tensors, unpack_tensors

LIMIT = 2**20
NUMBERS = sorted(name for name in DTYPES if name not in {"BYTES", "BF16"})


def read(data: bytes, limit: int = LIMIT) -> list[Frame]:
    return FrameReader(limit).feed(data)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Array]:
    made: dict[str, Array] = {}
    for name in draw(st.lists(st.text(max_size=8), max_size=4, unique=True)):
        shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        datatype = draw(st.sampled_from(sorted(DTYPES)))
        count = int(np.prod(shape))
        if datatype == "BYTES":
            array = np.empty(count, object)
            array[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
            made[name] = array.reshape(shape)
        elif datatype == "BF16":
            made[name] = np.arange(count).astype(ml_dtypes.bfloat16).reshape(shape)
        else:
            made[name] = draw(arrays.arrays(DTYPES[datatype], shape))
    return made


def same(left: dict[str, Array], right: dict[str, Array]) -> bool:
    return list(left) == list(right) and all(
        left[name].shape == right[name].shape
        and left[name].dtype == right[name].dtype
        and (left[name].tolist() == right[name].tolist() or left[name].tobytes() == right[name].tobytes())
        for name in left
    )


@given(tensors(), st.binary(max_size=40), st.integers(0, 2**32 - 1))
def test_tensors_arrive_as_they_were_sent(given_tensors: dict[str, Array], header: bytes, stream: int) -> None:
    heads, buffers, size = pack_tensors(given_tensors)
    data = b"".join(pack(Kind.ASK, 7, stream, header, buffers, size))
    assert len(data) % ALIGN == 0
    (frame,) = read(data)
    assert (frame.kind, frame.topic, frame.stream, frame.header) == (Kind.ASK, 7, stream, header)
    assert same(unpack_tensors(heads, frame.data, frame.start, frame.size), given_tensors)


@given(
    st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=50), st.binary(max_size=50)), max_size=6), st.data()
)
def test_frames_are_the_same_however_the_bytes_are_cut(
    said: list[tuple[Kind, bytes, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(
        b"".join(pack(kind, 1, number, header, (body,), len(body))) for number, (kind, header, body) in enumerate(said)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reader = FrameReader(LIMIT)
    found: list[Frame] = []
    for low, high in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += reader.feed(whole[low:high])
    assert [(frame.kind, frame.header, frame.payload()) for frame in found] == said
    assert reader.held == 0


@pytest.mark.parametrize("datatype", [*NUMBERS, "BF16"])
def test_numbers_are_read_where_they_lie(datatype: str) -> None:
    """Neither the small nor the large ones are copied on receipt, and all lie where the processor likes them."""
    given_tensors = {
        "small": np.arange(3).astype(DTYPES[datatype]),
        "large": np.zeros(COPIED_BYTES_MAX + 1, DTYPES[datatype]),
        "scalar": np.array(1).astype(DTYPES[datatype]),
    }
    heads, buffers, size = pack_tensors(given_tensors)
    (frame,) = read(b"".join(pack(Kind.ASK, 1, 1, b"header", buffers, size)))
    for array in unpack_tensors(heads, frame.data, frame.start, frame.size).values():
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.flags.aligned
        assert array.flags.c_contiguous


def test_what_is_not_contiguous_arrives_all_the_same() -> None:
    large = np.arange(4 * COPIED_BYTES_MAX, dtype=np.float32).reshape(4, -1).T
    heads, buffers, size = pack_tensors({"x": large, "y": large[::2, 1:]})
    found = unpack_tensors(heads, b"".join(buffers), 0, size)
    assert np.array_equal(found["x"], large)
    assert np.array_equal(found["y"], large[::2, 1:])


# -- garbage -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    try:
        read(data)
    except FrameError:
        return


@given(st.binary(max_size=64), st.integers(0, 200), st.integers(0, 255))
def test_a_bent_byte_is_frames_or_an_error(body: bytes, place: int, value: int) -> None:
    data = bytearray(b"".join(pack(Kind.LAST, 3, 9, b"head", (body,), len(body))))
    data[place % len(data)] = value
    try:
        read(bytes(data))
    except FrameError:
        return


HEADS = st.lists(
    st.tuples(
        st.text(max_size=3),
        st.sampled_from([*DTYPES, "FP99", ""]),
        st.lists(st.integers(-2, 2**70) | st.integers(0, 3), max_size=70).map(tuple),
        st.integers(-1, 200),
    ),
    max_size=3,
)


@given(HEADS, st.binary(max_size=96))
def test_any_heads_of_tensors_are_arrays_or_an_error(heads: Any, payload: bytes) -> None:
    try:
        found = unpack_tensors(heads, payload, 0, len(payload))
    except FrameError:
        return
    assert sum(array.nbytes for array in found.values() if array.dtype != object) <= len(payload)


LIARS = {
    "version": HEAD.pack(VERSION + 1, Kind.ASK, 1, 1, 0, 0),
    "kind": HEAD.pack(VERSION, 0, 1, 1, 0, 0),
    "header beyond the bound": HEAD.pack(VERSION, Kind.ASK, 1, 1, LIMIT, 0),
    "payload beyond the bound": HEAD.pack(VERSION, Kind.ASK, 1, 1, 0, 2**32 - 1),
}


@pytest.mark.parametrize("what", LIARS)
def test_head_that_cannot_be_is_refused_at_once(what: str) -> None:
    with pytest.raises(FrameError):
        read(LIARS[what])


def test_a_claim_takes_no_memory() -> None:
    """A head that claims a large frame, within the bound, and then brings a little of it."""
    reader = FrameReader(2**31)
    tracemalloc.start()
    try:
        reader.feed(HEAD.pack(VERSION, Kind.ASK, 1, 1, 0, 2**30))
        for _ in range(100):
            assert reader.feed(bytes(1000)) == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert reader.held == HEAD.size + 100_000


def test_more_strings_than_bytes_cannot_be() -> None:
    with pytest.raises(FrameError, match="cannot be"):
        unpack_tensors([("x", "BYTES", (2**60,), 16)], bytes(16), 0, 16)


def test_frame_that_is_too_large_is_not_made() -> None:
    body = bytes(1000)
    with pytest.raises(FrameTooLarge, match="frame-bytes-max"):
        pack(Kind.ASK, 1, 1, b"", (body,), len(body), frame_bytes_max=1000)
