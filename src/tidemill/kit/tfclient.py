"""The stock gRPC client of TensorFlow Serving without TensorFlow; laid out by any process, imported by others.

`tensorflow-serving-api` is 30 kB, but imports a handful of protobuf modules out of TensorFlow's wheel of 274 MB. Only
these are read from it, by ranges, and put under packages that hold nothing else. Whoever has the folder on PYTHONPATH,
with plain grpcio and protobuf 6.31 or newer, writes what its users write:
`from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from tidemill.core.errors import FetchFailed
from tidemill.core.places import cache_dir
from tidemill.kit import tree
from tidemill.kit.catalogue import Wheel
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.members import members, read
from tidemill.kit.tree import FileRecord
from tidemill.kit.wheels import wheel_file

SERVING_API: Final = Wheel(
    package="tensorflow-serving-api",
    version="2.21.0",
    filename="tensorflow_serving_api-2.21.0-py2.py3-none-any.whl",
    size_bytes=30_013,
    sha256="8f0c45be6e1a9c034dd3be63d73d09b1a899cf5a66d9caa1d557f137c2eff51d",
)
TENSORFLOW: Final = Wheel(
    package="tensorflow-cpu",
    version="2.21.0",
    filename="tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
    size_bytes=273_829_956,
    sha256="2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c",
    platform="manylinux_2_27_x86_64",
)
CONTENT_SHA256: Final = "6e66aff954d4225309222dd9b254eecb78f8c414793c157463357c5f540ff534"
"""Digest of the lines `path sha256` of all files in order of path."""

_FOLDERS = {
    "tensorflow_serving/apis": """
        classification get_model_metadata get_model_status inference input logging model model_management
        model_service predict prediction_log prediction_service regression session_service status
    """,
    "tensorflow_serving/config": """
        file_system_storage_path_source log_collector_config logging_config model_server_config platform_config
    """,
    "tensorflow/compiler/xla/tsl/protobuf": "coordination_config error_codes rpc_options",
    "tensorflow/core/example": "example feature",
    "tensorflow/core/framework": """
        allocation_description attr_value cost_graph full_type function graph graph_debug_info node_def op_def
        resource_handle step_stats tensor tensor_description tensor_shape types variable versions
    """,
    "tensorflow/core/protobuf": """
        cluster config debug error_codes meta_graph named_tensor rewriter_config rpc_options saved_object_graph saver
        struct trackable_object_graph verifier_config
    """,
}
_MODULES = tuple(f"{folder}/{name}_pb2.py" for folder, names in _FOLDERS.items() for name in names.split())
SERVING_MODULES: Final = (
    *(path for path in _MODULES if path.startswith("tensorflow_serving/")),
    "tensorflow_serving/apis/model_service_pb2_grpc.py",
    "tensorflow_serving/apis/prediction_service_pb2_grpc.py",
)
TENSORFLOW_MODULES: Final = tuple(path for path in _MODULES if path.startswith("tensorflow/"))


def install_client(progress: Progress = silent) -> Path:
    """The folder to put on PYTHONPATH, made on the first call. Raises `FetchFailed`."""
    home = cache_dir() / f"tensorflow-serving-client-{SERVING_API.version}"
    if not _ready(home):
        try:
            with tree.lock(home.with_name(f"{home.name}.lock")):
                if not _ready(home):
                    _lay_out(home, progress)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise FetchFailed(f"the TensorFlow Serving client cannot be laid out in {home}: {error}") from error
    return home


def _ready(home: Path) -> bool:
    try:
        records = msgspec.json.decode((home / "manifest.json").read_bytes(), type=dict[str, FileRecord])
    except (OSError, msgspec.DecodeError):
        return False
    return _combined(records) == CONTENT_SHA256 and tree.intact(home, records)


def _lay_out(home: Path, progress: Progress) -> None:
    with zipfile.ZipFile(wheel_file(SERVING_API, progress)) as archive:
        modules = read(archive, SERVING_MODULES, SERVING_API.requirement)
    modules |= members(TENSORFLOW, TENSORFLOW_MODULES, progress)
    folders = {parent for path in modules for parent in PurePosixPath(path).parents if parent.name}
    files = modules | {f"{folder}/__init__.py": b"" for folder in folders}
    records = {path: tree.record(data) for path, data in files.items()}
    if (got := _combined(records)) != CONTENT_SHA256:
        raise FetchFailed(
            f"the modules of {SERVING_API.requirement} and {TENSORFLOW.requirement} are refused: together they have"
            f" the sha256 {got}, expected {CONTENT_SHA256}; is the mirror sound?"
        )
    tree.settle(home, files | {"manifest.json": msgspec.json.encode(records, order="deterministic")})


def _combined(records: Mapping[str, FileRecord]) -> str:
    lines = "".join(f"{path} {records[path].sha256}\n" for path in sorted(records))
    return hashlib.sha256(lines.encode()).hexdigest()
