"""The answers for a convolution's groups as the answer for the whole layer; pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidemill.compress.forms import Activation, Codebook, Dense, Form, Planes, Uniform
from tidemill.compress.task import LayerResult, LayerTask


def stack(tasks: Sequence[LayerTask], results: Sequence[LayerResult]) -> LayerResult:
    """Group after group, rows below rows. Errors are weighed by what each group gives."""
    if len(results) == 1:
        return results[0]
    energies = np.array([_energy(task) for task in tasks])
    shares = energies / energies.sum() if energies.sum() > 0 else np.full(len(tasks), 1 / len(tasks))
    bias = None
    if any(result.bias is not None for result in results):
        bias = np.concatenate([
            result.bias if result.bias is not None
            else task.bias if task.bias is not None
            else np.zeros(len(task.weight), np.float32)
            for task, result in zip(tasks, results, strict=True)
        ])  # fmt: skip
    return LayerResult(
        stack_forms([result.form for result in results]),
        bias,
        _widest([result.activation for result in results if result.activation is not None]),
        float(shares @ [result.error_fit for result in results]),
        float(shares @ [result.error_held for result in results]),
        max(result.damping for result in results),
        tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


def _energy(task: LayerTask) -> float:
    weight = task.weight.astype(np.float64)
    return max(float(np.einsum("ij,ij->", weight @ task.fit.second, weight)), 0.0)


def stack_forms(forms: Sequence[Form]) -> Form:
    """Of one kind where they are, plain values where not."""
    first = forms[0]
    if all(isinstance(form, Dense) for form in forms):
        return Dense(np.concatenate([form.weight for form in forms if isinstance(form, Dense)]))
    if isinstance(first, Uniform):
        same = [form for form in forms if isinstance(form, Uniform) and form.bits == first.bits]
        if len(same) == len(forms) and len({form.block for form in same}) == 1:
            return Uniform(
                np.concatenate([form.codes for form in same]),
                np.concatenate([form.scales for form in same]),
                np.concatenate([form.zero_points for form in same]),
                first.bits,
                first.block,
            )
    if isinstance(first, Codebook):
        books = [form for form in forms if isinstance(form, Codebook)]
        if len(books) == len(forms) and len({form.values.shape[1] for form in books}) == 1:
            values = [np.broadcast_to(form.values, (len(form.codes), form.values.shape[1])) for form in books]
            return Codebook(np.concatenate([form.codes for form in books]), np.concatenate(values))
    if isinstance(first, Planes):
        sums = [form for form in forms if isinstance(form, Planes) and len(form.planes) == len(first.planes)]
        if len(sums) == len(forms):
            planes = [stack_forms(each) for each in zip(*(form.planes for form in sums), strict=True)]
            uniform = tuple(plane for plane in planes if isinstance(plane, Uniform))
            if len(uniform) == len(planes):
                return Planes(uniform)
    # Groups of one solver differ in kind only where one was too small for it: plain values hold them all.
    return Dense(np.concatenate([form.decode() for form in forms]))


def _widest(activations: Sequence[Activation]) -> Activation | None:
    """One that holds every group's range: the groups read one tensor, which is quantised once."""
    if not activations or len(set(activations)) == 1:
        return activations[0] if activations else None
    bits = max(each.bits for each in activations)
    low = min(-each.zero_point * each.scale for each in activations)
    high = max((2**each.bits - 1 - each.zero_point) * each.scale for each in activations)
    scale = (high - low) / (2**bits - 1) or 1.0
    return Activation(scale, round(-low / scale), bits, any(each.dynamic for each in activations))
