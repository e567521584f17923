"""Which operators each form of a layer becomes; runs in the command line's process.

- MatMul, Gemm: MatMulNBits of 2, 4 or 8 bits. With an 8-bit input and one scale a row: integer products.
- Conv, and a MatMul whose constant is on the left: 8-bit integers and DequantizeLinear, narrower on disk.
- Gather: rows are decoded as they are asked for.
`docs/decisions/0017-forms-that-stay-small.md` says why.
"""

from __future__ import annotations

import numpy as np

from tidemill.compress.emit import activation as activations
from tidemill.compress.emit import dequantised, grid, nbits, rows
from tidemill.compress.emit.patch import Emission, Patch
from tidemill.compress.forms import Activation, Codebook, Dense, Form, Planes, Uniform
from tidemill.compress.graph import Graph
from tidemill.compress.layers import Layer
from tidemill.core.errors import RefusedLayer
from tidemill.core.tensor import Array

FLOAT = 1


def emit(
    graph: Graph,
    layer: Layer,
    form: Form,
    activation: Activation | None = None,
    bias: Array | None = None,
    emission: Emission | None = None,
) -> None:
    """Rewrites `layer`'s node so that it computes with `form` (of the whole layer: groups·out rows), its input rounded
    by `activation`. `bias` None leaves the bias.

    Values on no even grid (`Codebook`, `Planes`) are rounded to 8 bits within their own range. A dynamic `activation`
    is exact only together with one scale a row; elsewhere MatMulNBits rounds its input by itself, in finer steps, and a
    convolution of another form leaves its input as it is. Raises `RefusedLayer`.
    """
    _check(layer, form)
    emission = emission or Emission()
    if bias is not None:
        graph.set_bias(layer, bias)
    if isinstance(form, Dense):
        graph.set_dense(layer, form.weight)
        if activation is not None and not activation.dynamic and layer.op != "Gather":
            _rounded_only(graph, layer, activation)
        return
    patch = Patch(graph, layer)
    if layer.op == "Gather":
        rows.write(patch, form)
    elif activation is not None and activation.dynamic and _can_be_dynamic(layer, form):
        _dynamic(patch, form, emission)
    else:
        _weights_only(patch, form, activation, emission)
    patch.apply()


def _check(layer: Layer, form: Form) -> None:
    shapes = {plane.codes.shape for plane in form.planes} if isinstance(form, Planes) else {_shape(form)}
    wanted = (layer.groups * layer.shape[0], layer.shape[1])
    if shapes != {wanted}:
        got = ", ".join(map(str, shapes)) or "no planes"
        raise RefusedLayer(f"layer {layer.name!r} is {wanted}, and its new form is {got}")


def _shape(form: Form) -> tuple[int, ...]:
    if isinstance(form, Dense):
        return tuple(form.weight.shape)
    return tuple(form.codes.shape) if isinstance(form, Uniform | Codebook) else ()


def _straight(layer: Layer) -> bool:
    """x goes in on the left, W on the right."""
    return layer.operand == 1


def _has_row_scales(form: Form) -> bool:
    """One scale a row, and values around a code, so that an integer product can be scaled after the fact."""
    if isinstance(form, Planes):
        return all(_has_row_scales(plane) for plane in form.planes)
    if isinstance(form, Uniform):
        return form.scales.shape[1] == 1 and (form.bits <= 2 or grid.whole(form))
    return isinstance(form, Codebook)


def _can_be_dynamic(layer: Layer, form: Form) -> bool:
    """ConvInteger takes no zero point for each row."""
    if not _has_row_scales(form) or not _straight(layer):
        return False
    return layer.op != "Conv" or all(part.zero_points is None for part in dequantised.integers_of(form))


def _rounded_only(graph: Graph, layer: Layer, activation: Activation) -> None:
    patch = Patch(graph, layer)
    source = activations.rounded(patch, activation)
    patch.keep_old([source if at == 1 - layer.operand else name for at, name in enumerate(patch.old.input)]
                   if layer.op != "Conv" else [source, *patch.old.input[1:]])  # fmt: skip
    patch.apply()


def _weights_only(patch: Patch, form: Form, activation: Activation | None, emission: Emission) -> None:
    layer = patch.layer
    source = layer.input
    static = activation is not None and not activation.dynamic
    if activation is not None and static:
        source = activations.rounded(patch, activation)
    integer = static and activation is not None and activation.bits == 8 and activations.integral(activation)
    if layer.op != "Conv" and _straight(layer) and not (integer and _has_row_scales(form)):
        parts = nbits.blocks_of(form)
        if parts is not None:
            _finish(patch, nbits.write(patch, source, parts, emission))
            return
    shape, out_first = _storage(layer, patch)
    weight = dequantised.write(patch, dequantised.integers_of(form), shape, out_first, emission)
    if layer.op == "Conv":
        patch.keep_old([source, weight, *patch.old.input[2:]])
    elif not _straight(layer):
        patch.keep_old([weight, source])
    else:
        _finish(patch, patch.add("MatMul", source, weight), integer)


def _storage(layer: Layer, patch: Patch) -> tuple[tuple[int, ...], bool]:
    """(shape, outputs first) of the weight that the layer's operator is to read."""
    if layer.op == "Conv":
        return patch.graph.shape(layer.weight) or (), True
    return (layer.shape, True) if not _straight(layer) else (layer.shape[::-1], False)


def _dynamic(patch: Patch, form: Form, emission: Emission) -> None:
    """The input's range is found in each call, over the whole tensor; the product is one of integers."""
    layer = patch.layer
    patch.need(dequantised.OPSET, "an input quantised in each call")
    parts = dequantised.integers_of(form)
    conv = layer.op == "Conv"
    shape, out_first = _storage(layer, patch)
    codes, scale, zero = _dynamic_input(patch)
    total = ""
    for part in parts:
        weight = dequantised.integers(patch, part, shape, out_first, emission)
        inputs = [codes, weight, zero]
        rows_of = [1, -1, *[1] * (len(shape) - 2)] if conv else [-1]
        if part.zero_points is not None:
            inputs.append(patch.constant("zeros", part.zero_points))
        if conv:
            product = patch.add("ConvInteger", *inputs)
            patch.nodes[-1].attribute.extend(patch.old.attribute)
        else:
            product = patch.add("MatMulInteger", *inputs)
        product = patch.add("Cast", product, to=FLOAT)
        scales = patch.constant("scales", part.scales.astype(np.float32).reshape(rows_of))
        product = patch.add("Mul", product, patch.add("Mul", scale, scales))
        total = patch.add("Add", total, product) if total else product
    _finish(patch, total)


def _dynamic_input(patch: Patch) -> tuple[str, str, str]:
    """(codes, scale, zero point) of the layer's input; layers that read the same tensor share them."""
    for node in patch.graph.consumers(patch.layer.input):
        if node.op_type == "DynamicQuantizeLinear" and _before(patch, node.name):
            return node.output[0], node.output[1], node.output[2]
    codes, scale, zero = patch.add_many("DynamicQuantizeLinear", [patch.layer.input], 3)
    return codes, scale, zero


def _before(patch: Patch, name: str) -> bool:
    names = [node.name for node in patch.graph.nodes]
    return names.index(name) < names.index(patch.layer.name)


def _finish(patch: Patch, product: str, negated: bool = False) -> None:
    """The bias of an operator that had one of its own, and the layer's own output.

    `negated`: onnxruntime makes a float Gemm of a MatMul and an Add before it looks for integer products (3.8 ms
    against 0.5 for 128 rows of 384 by 1536). It leaves a Sub alone.
    """
    layer = patch.layer
    old = patch.old
    if layer.op in {"Gemm", "Conv"} and len(old.input) > 2 and old.input[2]:
        name = old.input[2]
        if layer.op == "Conv":
            rank = len(patch.graph.shape(layer.weight) or ())
            name = patch.constant("bias", patch.graph.array(name).reshape(1, -1, *[1] * (rank - 2)))
        if negated:
            patch.add("Sub", product, patch.constant("bias.negated", -patch.graph.array(name)))
        else:
            patch.add("Add", product, name)
    patch.nodes[-1].output[0] = patch.output
