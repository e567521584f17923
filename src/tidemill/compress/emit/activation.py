"""The rounding of a layer's input, as operators that engines recognise; runs where graphs do."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tidemill.compress.emit.patch import Patch
from tidemill.compress.forms import Activation

OPSET = 13


def integral(activation: Activation) -> bool:
    """Whether QuantizeLinear with a uint8 can say it (with a Clip before it, below 8 bits)."""
    zero = activation.zero_point
    return activation.bits <= 8 and zero == int(zero) and 0 <= zero < 2**activation.bits


def rounded(patch: Patch, activation: Activation) -> str:
    """The name of the layer's input as the layer sees it. Layers that read one tensor with one rounding share it."""
    patch.need(OPSET, "a quantised input")
    source = patch.layer.input
    scale, zero = np.float32(activation.scale), activation.zero_point
    coded = integral(activation) and patch.layer.operand == 1
    name = f"{source}.{'coded' if coded else 'rounded'}{activation.bits}_{zero:g}_{scale:.9g}"
    graph = patch.graph
    if graph.maker(name) is not None:
        return name
    # onnxruntime makes an integer product of codes on the right, too, and then cannot run it.
    steps = _quantised(patch, activation, source, name) if coded else _computed(patch, activation, name)
    nodes = []
    for at, (op, inputs, output) in enumerate(steps):
        nodes.append(helper.make_node(op, inputs, [output], name=graph.fresh(f"{name}.{op}{at}")))
    maker = graph.maker(source)
    if maker is not None:
        graph.replace({maker.name: [type(maker).FromString(maker.SerializeToString()), *nodes]})
    else:
        first = graph.nodes[0]
        graph.replace({first.name: [*nodes, type(first).FromString(first.SerializeToString())]})
    patch.old = graph.node(patch.layer.name)
    return name


def _quantised(patch: Patch, activation: Activation, source: str, name: str) -> list[tuple[str, list[str], str]]:
    scale = np.float32(activation.scale)
    zero = int(activation.zero_point)
    step = patch.constant(f"{name}.scale", np.array(scale, np.float32), shared=True)
    offset = patch.constant(f"{name}.zero", np.array(zero, np.uint8), shared=True)
    steps = []
    given = source
    if activation.bits < 8:
        ends = [np.float32(-zero) * scale, np.float32(2**activation.bits - 1 - zero) * scale]
        bounds = [
            patch.constant(f"{name}.{which}", np.array(end, np.float32), shared=True)
            for which, end in zip(("low", "high"), ends, strict=True)
        ]
        given = f"{name}.clipped"
        steps.append(("Clip", [source, *bounds], given))
    steps.append(("QuantizeLinear", [given, step, offset], f"{name}.codes"))
    steps.append(("DequantizeLinear", [f"{name}.codes", step, offset], name))
    return steps


def _computed(patch: Patch, activation: Activation, name: str) -> list[tuple[str, list[str], str]]:
    """For what QuantizeLinear cannot say: right in every engine, and not fast."""
    given = {
        "scale": activation.scale,
        "zero": activation.zero_point,
        "low": 0.0,
        "high": 2.0**activation.bits - 1,
    }
    held = {
        what: patch.constant(f"{name}.{what}", np.array(value, np.float32), shared=True)
        for what, value in given.items()
    }
    inner = [f"{name}.{at}" for at in range(5)]
    return [
        ("Div", [patch.layer.input, held["scale"]], inner[0]),
        ("Add", [inner[0], held["zero"]], inner[1]),
        ("Round", [inner[1]], inner[2]),
        ("Clip", [inner[2], held["low"], held["high"]], inner[3]),
        ("Sub", [inner[3], held["zero"]], inner[4]),
        ("Mul", [inner[4], held["scale"]], name),
    ]
