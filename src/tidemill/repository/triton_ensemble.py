"""Triton's `ensemble_scheduling` as the stages of an ensemble here; pure, used by the owner and the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from tidemill.core.errors import RefusedModel
from tidemill.core.text import short

ENGINE = "ensemble"
NEWEST = (-1, 0)
"""A step's `model_version`: Triton's word for the newest, and nothing said."""


class Step(NamedTuple):
    """A step and what it is called in messages. `inputs` maps the model's inputs to tensors of the ensemble, `outputs`
    tensors of the ensemble to the model's outputs."""

    model: str
    version: int | None
    inputs: dict[str, str]
    outputs: dict[str, str]
    where: str


def translated(said: Any, notes: list[str]) -> dict[str, Any]:
    """What a `ModelConfig` says of an ensemble, as fields of ours; none for a model of its own. Raises
    `RefusedModel`."""
    if said.WhichOneof("scheduling_choice") != "ensemble_scheduling":
        return {}
    for word in (said.platform, said.backend):
        if word not in ("", ENGINE):
            raise RefusedModel(f"ensemble_scheduling is for the platform {ENGINE!r}, and this one is {short(word)}")
    if said.ensemble_scheduling.max_inflight_requests:
        notes.append("ensemble_scheduling max_inflight_requests: queue_max bounds what is under way")
    inputs = {tensor.name for tensor in said.input}
    steps = [_step(number, step) for number, step in enumerate(said.ensemble_scheduling.step, 1)]
    if not steps or not inputs or not said.output:
        raise RefusedModel("ensemble_scheduling: an ensemble has a step, an input and an output at least")
    makers = _makers(steps, inputs)
    for tensor in said.output:
        if tensor.name not in makers:
            raise RefusedModel(f"ensemble_scheduling: no step gives the output {short(tensor.name)}")
    return {
        "engine": ENGINE,
        "inputs": [_spec(tensor, said) for tensor in said.input],
        "outputs": [_spec(tensor, said) for tensor in said.output],
        "stage": [
            {"model": each.model, "version": each.version, "inputs": each.inputs, "outputs": each.outputs}
            for each in _ordered(steps, inputs, makers)
        ],
    }


def _step(number: int, step: Any) -> Step:
    where = f"ensemble_scheduling: step {number}"
    if not step.model_name:
        raise RefusedModel(f"{where} has no model_name")
    where += f" ({short(step.model_name)})"
    if step.model_namespace:
        raise RefusedModel(f"{where}: model_namespace {short(step.model_namespace)}: names are not divided here")
    if step.model_version < min(NEWEST):
        raise RefusedModel(f"{where}: model_version is {step.model_version}, expected a version, or -1 for the newest")
    if not step.input_map or not step.output_map:
        raise RefusedModel(f"{where} has no {'output_map' if step.input_map else 'input_map'}")
    outputs = {mine: theirs for theirs, mine in sorted(step.output_map.items())}
    if len(outputs) < len(step.output_map):
        raise RefusedModel(f"{where}: two outputs of the model are one tensor of the ensemble")
    version = None if step.model_version in NEWEST else step.model_version
    return Step(step.model_name, version, dict(sorted(step.input_map.items())), outputs, where)


def _makers(steps: list[Step], inputs: Collection[str]) -> dict[str, Step]:
    """Which step gives each tensor. Raises `RefusedModel` for one that is given twice or by nobody."""
    makers: dict[str, Step] = {}
    for step in steps:
        for tensor in step.outputs:
            if tensor in makers or tensor in inputs:
                other = makers[tensor].where.partition(": ")[2] if tensor in makers else "the request"
                raise RefusedModel(f"{step.where} gives {short(tensor)}, which {other} gives too")
            makers[tensor] = step
    for step in steps:
        for tensor in step.inputs.values():
            if tensor not in makers and tensor not in inputs:
                raise RefusedModel(f"{step.where} takes {short(tensor)}, which is no input and which no step gives")
    return makers


def _ordered(steps: list[Step], inputs: Collection[str], makers: Mapping[str, Step]) -> list[Step]:
    """Each behind those whose tensors it takes; Triton's steps stand in any order. Raises `RefusedModel` for a
    circle."""
    there, waiting, ordered = set(inputs), list(steps), list[Step]()
    while waiting:
        ready = [step for step in waiting if there.issuperset(step.inputs.values())]
        if not ready:
            step = waiting[0]
            tensor = next(each for each in step.inputs.values() if each not in there)
            behind = makers[tensor].where.partition(": ")[2]
            raise RefusedModel(
                f"{step.where} takes {short(tensor)} from {behind}, and neither can be first: the steps wait for one"
                " another in a circle"
            )
        ordered += ready
        there.update(*(step.outputs for step in ready))
        waiting = [step for step in waiting if step not in ready]
    return ordered


def _spec(tensor: Any, said: Any) -> dict[str, Any]:
    """`dims` leaves the batch out where there is one."""
    datatype = datatype_of(tensor)
    if not datatype:
        raise RefusedModel(f"tensor {short(tensor.name)} has no data_type, which an ensemble's have")
    shape = [*([-1] if said.max_batch_size > 0 else []), *tensor.dims]
    return {"name": tensor.name, "datatype": datatype, "shape": shape}


def datatype_of(told: Any) -> str:
    """The datatype that the `data_type` of a message says, "" for none that is known."""
    kind = told.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number.get(told.data_type)
    word = "" if kind is None else kind.name.removeprefix("TYPE_")
    return {"INVALID": "", "STRING": "BYTES"}.get(word, word)
