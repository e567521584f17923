"""The compiled schemas are fresh, private, and the same on the wire as those of Triton's client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc.model_config_pb2 as triton_config
import tritonclient.grpc.service_pb2 as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from message_strategies import messages
from tidemill.core import schemas

BUILD = Path(schemas.__file__).with_name("build.py")
SHARED = [
    name
    for name in schemas.pool().FindFileByName("inference.proto").message_types_by_name
    if name in triton.DESCRIPTOR.message_types_by_name
]
CONFIG = list(schemas.pool().FindFileByName("model_config.proto").message_types_by_name)
PARTLY = {"ModelConfigResponse", "ModelStatistics", "ModelStatisticsResponse"}
"""Messages that are only written here, with the fields that mean something here."""
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_compiled_file_is_what_the_sources_give() -> None:
    subprocess.run([sys.executable, str(BUILD), "--check"], check=True, timeout=60)


def test_a_stale_compiled_file_is_told(tmp_path: Path) -> None:
    for source in BUILD.parent.glob("*.proto"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    copy = tmp_path / BUILD.name
    copy.write_bytes(BUILD.read_bytes())
    stale = subprocess.run([sys.executable, str(copy), "--check"], check=False, capture_output=True, timeout=60)
    assert stale.returncode == 1
    assert b"stale" in stale.stderr


def test_our_classes_and_tritons_live_side_by_side_under_one_name() -> None:
    ours = schemas.message("inference.ModelInferRequest")
    assert ours is not triton.ModelInferRequest
    assert ours.DESCRIPTOR.full_name == triton.ModelInferRequest.DESCRIPTOR.full_name


def test_an_unknown_message_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        schemas.message("inference.Nothing")


def test_every_inference_message_has_a_counterpart_in_tritons() -> None:
    assert set(SHARED) == set(schemas.pool().FindFileByName("inference.proto").message_types_by_name)


def test_methods_have_tritons_types() -> None:
    theirs = triton.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    ours = schemas.pool().FindServiceByName("inference.GRPCInferenceService").methods
    assert {(m.name, m.input_type.full_name, m.output_type.full_name) for m in ours} == {
        (m.name, theirs[m.name].input_type.full_name, theirs[m.name].output_type.full_name) for m in ours
    }


@QUICK
@given(st.data())
@pytest.mark.parametrize("name", SHARED)
def test_what_we_write_triton_reads_and_gives_back(name: str, data: st.DataObject) -> None:
    ours, theirs = schemas.message(f"inference.{name}"), getattr(triton, name)
    message = data.draw(messages(ours))
    read = theirs.FromString(message.SerializeToString())
    assert str(read) == str(message)  # the same fields by name, not only the same bytes passed through
    assert ours.FromString(read.SerializeToString()) == message


@QUICK
@given(st.data())
@pytest.mark.parametrize("name", CONFIG)
def test_what_we_write_of_a_configuration_triton_reads(name: str, data: st.DataObject) -> None:
    ours, theirs = schemas.message(f"inference.{name}"), getattr(triton_config, name)
    message = data.draw(messages(ours))
    assert str(theirs.FromString(message.SerializeToString())) == str(message)


@QUICK
@given(st.data())
@pytest.mark.parametrize("name", [name for name in SHARED if name not in PARTLY])
def test_what_triton_writes_we_read_and_give_back(name: str, data: st.DataObject) -> None:
    ours, theirs = schemas.message(f"inference.{name}"), getattr(triton, name)
    message = data.draw(messages(theirs))
    read = ours.FromString(message.SerializeToString())
    assert str(read) == str(message)
    assert theirs.FromString(read.SerializeToString()) == message
