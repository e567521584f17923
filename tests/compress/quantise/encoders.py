"""A small sentence encoder as exporters write one, and token rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

import compress_nets
from tidemill.compress.graph import Graph
from tidemill.compress.pipeline import Settings
from tidemill.compress.workbench import Workbench
from tidemill.core.tensor import Array

WIDTH, HEADS, WORDS, OUTLIER = 32, 4, 50, 12


def encoder(erf: bool = True) -> Any:
    """int64 ids and mask [batch, tokens] -> states [batch, tokens, 32]: one layer of a transformer."""
    node = helper.make_node
    draw = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "table": draw.standard_normal((WORDS, WIDTH)).astype(np.float32),
        "axes": np.array([1, 2]),
        "unit": np.array(1, np.float32),
        "hidden": np.array(-10_000, np.float32),
        "root": np.array((WIDTH / HEADS) ** 0.5, np.float32),
        "split": np.array([0, 0, HEADS, WIDTH // HEADS]),
        "merge": np.array([0, 0, WIDTH]),
        "two": np.array(2**0.5, np.float32),
        "half": np.array(0.5, np.float32),
    }
    wide = np.ones(WIDTH, np.float32)
    wide[3] = OUTLIER  # an outlier channel, as real ones have
    for name in ("norm0", "norm1", "norm2"):
        constants[f"{name}.w"], constants[f"{name}.b"] = wide.copy(), np.zeros(WIDTH, np.float32)
    constants["norm2.w"][:] = 1
    nodes = [
        node("Gather", ["table", "ids"], ["words"]),
        node("Unsqueeze", ["mask", "axes"], ["mask4"]),
        node("Cast", ["mask4"], ["maskf"], to=1),
        node("Sub", ["unit", "maskf"], ["absent"]),
        node("Mul", ["absent", "hidden"], ["bias"]),
        node("LayerNormalization", ["words", "norm0.w", "norm0.b"], ["x"]),
    ]

    def linear(name: str, x: str, out: int, into: int) -> str:
        constants[f"{name}.w"] = (draw.standard_normal((into, out)) / into**0.5).astype(np.float32)
        constants[f"{name}.w"][3] /= OUTLIER
        constants[f"{name}.b"] = draw.standard_normal(out).astype(np.float32)
        nodes.append(node("MatMul", [x, f"{name}.w"], [f"{name}.m"], name=name))
        nodes.append(node("Add", [f"{name}.m", f"{name}.b"], [f"{name}.y"]))
        return f"{name}.y"

    for name, perm in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
        nodes.append(node("Reshape", [linear(name, "x", WIDTH, WIDTH), "split"], [f"{name}.h"]))
        nodes.append(node("Transpose", [f"{name}.h"], [f"{name}.t"], perm=perm))
    nodes += [
        node("MatMul", ["q.t", "k.t"], ["scores"]),
        node("Div", ["scores", "root"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "v.t"], ["context"]),
        node("Transpose", ["context"], ["turned"], perm=(0, 2, 1, 3)),
        node("Reshape", ["turned", "merge"], ["merged"]),
        node("Add", [linear("o", "merged", WIDTH, WIDTH), "x"], ["r1"]),
        node("LayerNormalization", ["r1", "norm1.w", "norm1.b"], ["a"]),
    ]
    inner = linear("f1", "a", 4 * WIDTH, WIDTH)
    if erf:
        nodes += [
            node("Div", [inner, "two"], ["g0"]),
            node("Erf", ["g0"], ["g1"]),
            node("Add", ["g1", "unit"], ["g2"]),
            node("Mul", [inner, "g2"], ["g3"]),
            node("Mul", ["g3", "half"], ["g"]),
        ]
    else:
        nodes.append(node("Gelu", [inner], ["g"]))
    outer = linear("f2", "g", WIDTH, 4 * WIDTH)
    nodes += [node("Add", [outer, "a"], ["r2"]), node("LayerNormalization", ["r2", "norm2.w", "norm2.b"], ["states"])]
    shape = ["batch", "tokens"]
    inputs = {"ids": (TensorProto.INT64, shape), "mask": (TensorProto.INT64, shape)}
    return compress_nets.model(_ordered(nodes), inputs, ["states"], constants)


def _ordered(nodes: Sequence[Any]) -> list[Any]:
    """`linear` writes a layer where it is called for, which may be before the list that calls for it."""
    made, left, done = {"ids", "mask"}, list(nodes), []
    outputs = {name for node in nodes for name in node.output}
    while left:
        ready = next(node for node in left if all(name in made or name not in outputs for name in node.input))
        left.remove(ready)
        done.append(ready)
        made.update(ready.output)
    return done


def batches(count: int, seed: int) -> list[dict[str, Array]]:
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        tokens = int(draw.integers(6, 20))
        mask = np.ones((8, tokens), np.int64)
        mask[::2, -3:] = 0
        found.append({"ids": draw.integers(0, WORDS, (8, tokens)), "mask": mask})
    return found


def bench(model: Any, fit: Any, held: Any, work: Path) -> Workbench:
    graph = Graph.from_model(model)
    return Workbench(graph, graph, SimpleNamespace(fit=fit, held=held), Settings(work=work, threads=1))


def answers(graph: Graph, batch: dict[str, Array]) -> Array:
    return np.asarray(graph.session(None, 1).run(None, batch)[0])


def cosine(left: Array, right: Array) -> float:
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(1) / lengths).mean())
