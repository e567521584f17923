from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_strategies import messages
from tidemill.core import schemas
from tidemill.core.schemas import wire

TensorProto = schemas.message("tensorflow.TensorProto")
FLOAT_VAL, STRING_VAL = 5, 8
GROUP = b"\xa3\x06\xa4\x06"  # field 100, begins and ends


@given(messages(TensorProto))
def test_a_packed_field_is_found_among_all_others(message: object) -> None:
    found = wire.payload(message.SerializeToString(), FLOAT_VAL)
    values = np.frombuffer(found or b"", np.float32)
    assert values.tolist() == list(message.float_val)


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_what_protobuf_writes(value: int) -> None:
    encoded = TensorProto(int64_val=[value]).SerializeToString()
    assert wire.lead(10, len(wire.varint(value))) + wire.varint(value) == encoded


@given(st.binary(max_size=300))
def test_a_lead_and_its_bytes_are_a_field(value: bytes) -> None:
    message = TensorProto.FromString(wire.lead(STRING_VAL, len(value)) + value)
    assert list(message.string_val) == [value]


def test_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="wire type 3"):
        wire.payload(GROUP + TensorProto(float_val=[1]).SerializeToString(), FLOAT_VAL)
