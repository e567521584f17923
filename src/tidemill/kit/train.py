"""Trains `fashion-cnn`, a small residual network for Fashion-MNIST, and writes it as ONNX; any process that has torch.

63,000 weights: few enough that the loss of a bit shows. Residual sums couple its channels, as in larger networks.
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tidemill.core.errors import MissingPart
from tidemill.core.places import cache_dir
from tidemill.core.tensor import Array
from tidemill.kit.fashion import LABELS, PACKAGE, SIDE, Pictures, pictures, values
from tidemill.kit.fetch import Progress, silent
from tidemill.kit.tree import lock

if TYPE_CHECKING:
    from torch import Tensor

NARROW: Final = 24
WIDE: Final = 48
TRAINING_S_MAX: Final = 7200.0
"""Longest that another process may train before this one gives up waiting for it."""

_OPSET = 21
_IR_VERSION = 10
_SHIFT_MAX = 1
_WAIT = "OMP_WAIT_POLICY"
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. `steps_max` cuts the plan short, for tests. The same plan gives the same weights on one machine."""

    epochs: int = 16
    batch: int = 128
    rate_max: float = 0.2
    momentum: float = 0.9
    decay: float = 2e-4
    seed: int = 0
    threads: int = 2
    steps_max: int | None = None

    def steps(self, rows: int) -> int:
        whole = self.epochs * (rows // self.batch)
        return whole if self.steps_max is None else min(whole, self.steps_max)


def build(progress: Progress = silent, plan: Plan | None = None) -> Mapping[str, bytes]:
    """`model.onnx` and `labels.txt`, trained on the first call and out of the cache on the next.

    Raises `FetchFailed` for the pictures, `MissingPart` without torch.
    """
    plan = plan or Plan()
    target = cache_dir() / "trained" / f"fashion-cnn-{digest(plan)}.onnx"
    with lock(target.with_name(f"{target.name}.lock"), TRAINING_S_MAX):
        if not target.exists():
            fresh = target.with_name(f"{target.name}.new")
            fresh.write_bytes(train(pictures(progress)[0], plan, progress))
            fresh.replace(target)
        return {"model.onnx": target.read_bytes(), "labels.txt": "".join(f"{label}\n" for label in LABELS).encode()}


def digest(plan: Plan) -> str:
    """Of all that the weights come from: what this file does (not its words), the pictures and the plan."""
    tree = ast.parse(Path(__file__).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(f"{PACKAGE.sha256} {plan} {ast.dump(tree)}".encode()).hexdigest()[:16]


def train(given: Pictures, plan: Plan, progress: Progress = silent) -> bytes:
    """`model.onnx`: float32 `image` [N, 1, 28, 28] from 0 to 1 gives float32 `logits` [N, 10].

    Stochastic gradient descent with one rise and fall of the rate; pictures are mirrored and shifted at random.
    Progress counts steps. Raises `MissingPart` without torch.
    """
    torch = _torch()
    steps = plan.steps(len(given.images))
    with _alone(torch, plan):
        network = _Network(torch)
        images, labels = torch.from_numpy(values(given.images)), torch.from_numpy(given.labels)
        optimiser = torch.optim.SGD(
            network.modules.parameters(), lr=plan.rate_max, momentum=plan.momentum, weight_decay=plan.decay,
            nesterov=True,
        )  # fmt: skip
        chance = np.random.default_rng(plan.seed)
        for step, rows in enumerate(_batches(len(images), plan, chance)):
            if step == steps:
                break
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_max * _share(step / steps)
            logits = network.forward(_varied(torch, images[rows], chance))
            loss = torch.nn.functional.cross_entropy(logits, labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            progress("training fashion-cnn (steps)", step + 1, steps)
        return _onnx(network.folded())


def _torch() -> Any:
    """Its threads wait asleep, unless told otherwise: awake they starve each other where others share the cores.

    The variable is read when torch is first imported.
    """
    told = _WAIT in os.environ
    os.environ.setdefault(_WAIT, "passive")
    try:
        import torch
    except ImportError as error:
        raise MissingPart(
            "fashion-cnn is trained on this machine, which takes torch: pip install 'tidemill[compress]'"
        ) from error
    finally:
        if not told:
            del os.environ[_WAIT]
    return torch


@contextmanager
def _alone(torch: Any, plan: Plan) -> Iterator[None]:
    """torch's threads and chance as the plan says, and as they were afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _share(done: float) -> float:
    """Of the highest rate: up in a line over the first quarter, down in a cosine to nothing."""
    rise = 0.25
    return done / rise if done < rise else 0.5 + 0.5 * math.cos(math.pi * (done - rise) / (1 - rise))


def _batches(rows: int, plan: Plan, chance: np.random.Generator) -> Iterator[Array]:
    for _ in range(plan.epochs):
        order = chance.permutation(rows)
        yield from order[: rows - rows % plan.batch].reshape(-1, plan.batch)


def _varied(torch: Any, images: Tensor, chance: np.random.Generator) -> Tensor:
    """Each picture mirrored or not; all of them shifted alike, which is enough: the next batch is shifted otherwise."""
    mirrored = torch.from_numpy(chance.random(len(images)) < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    across, down = chance.integers(0, 2 * _SHIFT_MAX + 1, 2)
    padded = torch.nn.functional.pad(images, (_SHIFT_MAX,) * 4)
    return padded[:, :, down : down + SIDE, across : across + SIDE].contiguous(memory_format=torch.channels_last)


_CONVOLUTIONS: Final = (
    # name, channels in, out, side of the kernel, stride
    ("stem", 1, NARROW, 4, 2),
    ("narrow.first", NARROW, NARROW, 3, 1),
    ("narrow.second", NARROW, NARROW, 3, 1),
    ("down", NARROW, WIDE, 3, 2),
    ("wide.first", WIDE, WIDE, 3, 1),
    ("wide.second", WIDE, WIDE, 3, 1),
)


class _Network:
    """stem, a residual block of 14 x 14, down, a residual block of 7 x 7, the mean, ten logits."""

    def __init__(self, torch: Any) -> None:
        nn = torch.nn
        self._relu = nn.functional.relu
        self._convolutions = {
            name: nn.Conv2d(into, out, side, stride, padding=1, bias=False)
            for name, into, out, side, stride in _CONVOLUTIONS
        }
        self._norms = {name: nn.BatchNorm2d(out, eps=_EPSILON) for name, _, out, _, _ in _CONVOLUTIONS}
        self._last = nn.Linear(WIDE, len(LABELS))
        parts = [*self._convolutions.values(), *self._norms.values(), self._last]
        self.modules = nn.ModuleList(parts).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = self._relu(self._step("stem", images))
        x = self._block("narrow", x)
        x = self._relu(self._step("down", x))
        x = self._block("wide", x)
        logits: Tensor = self._last(x.mean((2, 3)))
        return logits

    def _block(self, name: str, x: Tensor) -> Tensor:
        inner = self._relu(self._step(f"{name}.first", x))
        summed: Tensor = self._relu(x + self._step(f"{name}.second", inner))
        return summed

    def _step(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self._norms[name](self._convolutions[name](x))
        return result

    def folded(self) -> dict[str, Array]:
        """Weights and biases with the normalisation folded into the convolutions."""
        found = {}
        for name, convolution in self._convolutions.items():
            norm = self._norms[name]
            mean, variance, scale, shift, weight = (
                tensor.detach().numpy().astype(np.float64)
                for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias, convolution.weight)
            )
            factor = scale / np.sqrt(variance + _EPSILON)
            found[f"{name}.weight"] = (weight * factor[:, None, None, None]).astype(np.float32)
            found[f"{name}.bias"] = (shift - mean * factor).astype(np.float32)
        found["last.weight"] = self._last.weight.detach().numpy()
        found["last.bias"] = self._last.bias.detach().numpy()
        return found


def _onnx(weights: Mapping[str, Array]) -> bytes:
    """A node is called after its output, as in `minilm`."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolution(name: str, x: str) -> str:
        side, stride = next((side, stride) for each, _, _, side, stride in _CONVOLUTIONS if each == name)
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return node("Conv", inputs, name, kernel_shape=[side] * 2, strides=[stride] * 2, pads=[1] * 4)

    def block(name: str, x: str) -> str:
        inner = node("Relu", [convolution(f"{name}.first", x)], f"{name}.inner")
        summed = node("Add", [x, convolution(f"{name}.second", inner)], f"{name}.sum")
        return node("Relu", [summed], f"{name}.output")

    x = block("narrow", node("Relu", [convolution("stem", "image")], "stem.output"))
    x = block("wide", node("Relu", [convolution("down", x)], "down.output"))
    x = node("Flatten", [node("GlobalAveragePool", [x], "mean")], "features")
    node("Gemm", [x, "last.weight", "last.bias"], "logits", transB=1)
    graph = helper.make_graph(
        nodes,
        "fashion-cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return bytes(helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[opset]).SerializeToString())
