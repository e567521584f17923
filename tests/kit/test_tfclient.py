from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tidemill.core.errors import FetchFailed
from tidemill.kit import members, tfclient, wheels
from tidemill.kit.catalogue import Wheel
from tidemill.kit.network import Network
from tidemill.kit.tree import file_sha256

EVERY_MODULE = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for path in root.rglob("*_pb2*.py"):
    importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
import grpc, tensorflow
assert tensorflow.__file__.startswith(sys.argv[1])
asked = predict_pb2.PredictRequest()
asked.model_spec.name = "half"
asked.inputs["input"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[1.0]))
assert predict_pb2.PredictRequest.FromString(asked.SerializeToString()) == asked
assert prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("127.0.0.1:9")).Predict
"""


@pytest.fixture(scope="module")
def client() -> Path:
    """Really fetched once, into the user's cache."""
    return tfclient.install_client()


def test_stock_client_is_imported_without_tensorflow(client: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERY_MODULE, str(client)],
        env=os.environ | {"PYTHONPATH": str(client)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_second_call_asks_nobody(client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unplugged(*arguments: Any, **named: Any) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", unplugged)
    assert tfclient.install_client() == client


@pytest.fixture
def mirror(server: Any, client: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Both wheels, rebuilt of what they hold that is wanted, on servers of our own; the digests are the real ones."""
    serving, tensorflow = tmp_path / "serving.whl", tmp_path / "tensorflow.whl"
    for path, modules in ((serving, tfclient.SERVING_MODULES), (tensorflow, tfclient.TENSORFLOW_MODULES)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("tensorflow/libtensorflow.so", os.urandom(300_000))
            for module in modules:
                archive.writestr(module, (client / module).read_bytes())
    server.content = tensorflow.read_bytes()
    wheel = Wheel("tensorflow-cpu", "2.21.0", "tensorflow.whl", len(server.content), str(file_sha256(tensorflow)))
    monkeypatch.setattr(tfclient, "TENSORFLOW", wheel)
    monkeypatch.setattr(
        tfclient,
        "SERVING_API",
        Wheel("tensorflow-serving-api", "2.21.0", "s.whl", serving.stat().st_size, str(file_sha256(serving))),
    )
    monkeypatch.setattr(wheels, "locate", lambda asked: server.url if asked == wheel else serving.as_uri())
    monkeypatch.setattr(members, "locate", lambda asked: server.url)
    for module in (members, wheels):
        monkeypatch.setattr(module, "pip_network", Network)
    return server


def modules_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}


def test_modules_are_read_by_ranges(mirror: Any, client: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    made = tfclient.install_client(lambda *step: steps.append(step))
    assert made != client
    assert modules_of(made) == modules_of(client)
    assert all(mirror.asked)
    assert steps[-1][1] == steps[-1][2]


def test_server_without_range_gives_the_whole_wheel_which_is_not_kept(
    mirror: Any, client: Path, empty_cache: Path
) -> None:
    mirror.ranges = False
    assert modules_of(tfclient.install_client()) == modules_of(client)
    assert not list((empty_cache / "wheels").glob("*.whl"))


@pytest.mark.usefixtures("mirror")
def test_other_modules_are_refused(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setattr(tfclient, "CONTENT_SHA256", "0" * 64)
    with pytest.raises(FetchFailed, match=r"sha256 [0-9a-f]{64}, expected 0{64}"):
        tfclient.install_client()
    assert not list(empty_cache.glob("*client-2.21.0"))


def test_wheel_without_a_wanted_module_is_a_clear_error(mirror: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("nothing", b"")
    mirror.content = (tmp_path / "empty.whl").read_bytes()
    with pytest.raises(FetchFailed, match="cannot be laid out"):
        tfclient.install_client()
