"""Message classes of the wire formats that Tidemill shares with others; used in every process that speaks or reads one.

They live in a pool of their own under their real names, so a process that also loads TensorFlow or a Triton client
holds both without a clash. `schemas.binpb` is what `build.py` made of the `.proto` files beside it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool


@cache
def pool() -> DescriptorPool:
    """The private pool with every schema in it."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("schemas.binpb").read_bytes())
    made = DescriptorPool()
    for file in files.file:
        made.AddSerializedFile(file.SerializeToString())
    return made


@cache
def message(name: str) -> Any:
    """The class of the message with this full name, such as `tensorflow.TensorProto`. Raises `KeyError`."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))
