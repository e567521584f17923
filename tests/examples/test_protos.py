"""The .proto files that clients are given say what the service speaks: each name, number and type of theirs is ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from needs import ROOT
from tidemill.core import schemas

PROTO = ROOT / "examples/proto"
OURS = schemas.pool()
F = descriptor_pb2.FieldDescriptorProto


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[descriptor_pb2.FileDescriptorProto]:
    out = tmp_path_factory.mktemp("proto") / "examples.binpb"
    sources = sorted(each.name for each in PROTO.glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--descriptor_set_out={out}", *sources]
    subprocess.run(command, check=True, timeout=60)
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    assert [each.name for each in found.file]
    return list(found.file)


def messages(
    several: Iterator[descriptor_pb2.DescriptorProto] | list[descriptor_pb2.DescriptorProto], within: str
) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for each in several:
        name = f"{within}.{each.name}"
        yield name, each
        yield from messages(list(each.nested_type), name)


def test_every_message_is_a_part_of_ours(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    seen = 0
    for file in files:
        for name, theirs in messages(list(file.message_type), file.package):
            ours = OURS.FindMessageTypeByName(name)
            for field in theirs.field:
                assert field_of(ours, field.name) == (
                    field.number,
                    field.type,
                    field.label,
                    field.type_name.strip("."),
                ), f"{name}.{field.name}"
                seen += 1
    assert seen > 40


def field_of(ours: Descriptor, name: str) -> tuple[int, int, int, str]:
    plain = descriptor_pb2.DescriptorProto()
    ours.CopyToProto(plain)
    (field,) = (each for each in plain.field if each.name == name)
    return field.number, field.type, field.label, field.type_name.strip(".")


def test_every_enumeration_has_our_numbers(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    for file in files:
        for theirs in file.enum_type:
            ours: EnumDescriptor = OURS.FindEnumTypeByName(f"{file.package}.{theirs.name}")
            assert {each.name: each.number for each in theirs.value}.items() <= {
                each.name: each.number for each in ours.values
            }.items()


def test_every_method_is_one_of_ours(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    methods = 0
    for file in files:
        for service in file.service:
            ours = OURS.FindServiceByName(f"{file.package}.{service.name}")
            for method in service.method:
                known = ours.methods_by_name[method.name]
                assert (known.input_type.full_name, known.output_type.full_name) == (
                    method.input_type.strip("."),
                    method.output_type.strip("."),
                )
                methods += 1
    assert methods == 4


def test_a_file_that_says_otherwise_is_seen(tmp_path: Path) -> None:
    text = (PROTO / "tensorflow.proto").read_text().replace("float_val = 5", "float_val = 15")
    (tmp_path / "tensorflow.proto").write_text(text)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "tensorflow.proto"], check=True, timeout=60)
    files = list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)
    with pytest.raises(AssertionError, match="float_val"):
        test_every_message_is_a_part_of_ours(files)
