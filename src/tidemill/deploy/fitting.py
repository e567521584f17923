"""Whether the tensors of an ensemble fit together, as far as signatures tell; pure, for those who look before a start.

What steps make, and what `for_each` gathers, is known only when it runs: of such values nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tidemill.core.package import Stage
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.core.text import short

Values = dict[str, TensorSpec | None]
"""What is there by name; None where nobody knows what it is."""


def misfits(own: Signature, stages: tuple[Stage, ...], of: Callable[[Stage], Signature | None]) -> Iterator[str]:
    """One line for each tensor of the ensemble `own` that cannot pass, with what to do. `of` gives the signature of the
    model that a stage asks, None where it is not known."""
    values: Values = {spec.name: spec for spec in own.inputs}
    complete = True
    for number, stage in enumerate(stages, 1):
        where = f"stage {number} ({stage.model})"
        if stage.for_each and complete and stage.for_each not in values:
            yield f"{where}: no stage has given {short(stage.for_each)} for its for_each; there are {_names(values)}"
        before, complete_before = values, complete
        if stage.for_each:
            values = {**values, stage.element: None}
        if stage.before:
            values, complete = dict.fromkeys(values), False
        served = of(stage)
        if served is not None:
            yield from _taken(where, stage, served, values, complete)
        values = {**values, **_given(stage, served)}
        complete = complete and (served is not None or bool(stage.outputs))
        if stage.after:
            values, complete = dict.fromkeys(values), False
        if stage.for_each:
            made = stage.collect | stage.join
            for theirs in made.values():
                if complete and theirs not in values:
                    yield f"{where} gives no {short(theirs)} to collect or join; there are {_names(values)}"
            values, complete = {**before, **dict.fromkeys(made)}, complete_before
    yield from _declared(own, values, complete)


def _declared(own: Signature, values: Values, complete: bool) -> Iterator[str]:
    for spec in own.outputs:
        if spec.name not in values:
            if complete:
                yield f"no stage gives the output {short(spec.name)}; there are {_names(values)}"
        elif (found := values[spec.name]) is not None and not _becomes(found, spec):
            yield f"its stages give the output {short(spec.name)} as {_kind(found)}, and it declares {_kind(spec)}"


def _taken(where: str, stage: Stage, served: Signature, values: Values, complete: bool) -> Iterator[str]:
    wanted = {spec.name for spec in served.inputs}
    for name in stage.inputs:
        if name not in wanted:
            yield f"{where} has no input {short(name)}; it takes {', '.join(map(str, served.inputs))}"
    for spec in served.inputs:
        name = stage.inputs.get(spec.name, spec.name)
        if name not in values:
            if complete:
                yield (
                    f"{where} takes {short(name)} for its input {short(spec.name)}, which nobody gives before it;"
                    f" name one of {_names(values)} in its inputs"
                )
        elif (found := values[name]) is not None and not (
            found.datatype == spec.datatype and _meet(found.shape, spec.shape)
        ):
            yield (
                f"{where} takes {short(name)} for its input {short(spec.name)}: it is {_kind(found)}, and"
                f" {_kind(spec)} is wanted; name another in its inputs, or change it in a stage or step before"
            )
    known = {spec.name for spec in served.outputs}
    for name in stage.outputs.values():
        if name not in known:
            yield f"{where} has no output {short(name)}; it gives {', '.join(map(str, served.outputs))}"


def _given(stage: Stage, served: Signature | None) -> Values:
    if served is None:
        return dict.fromkeys(stage.outputs)
    given = {spec.name: spec for spec in served.outputs}
    return {mine: given.get(theirs) for mine, theirs in stage.outputs.items()} if stage.outputs else {**given}


def _meet(given: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> bool:
    """Whether some array is of both shapes."""
    if given is None or wanted is None:
        return True
    return len(given) == len(wanted) and all(
        -1 in sides or sides[0] == sides[1] for sides in zip(given, wanted, strict=True)
    )


def _becomes(given: TensorSpec, wanted: TensorSpec) -> bool:
    """Numbers of one kind are made those of another where an ensemble declares so."""
    return (given.datatype == "BYTES") == (wanted.datatype == "BYTES") and _meet(given.shape, wanted.shape)


def _kind(spec: TensorSpec) -> str:
    return str(spec).removeprefix(f"{spec.name} ")


def _names(values: Values) -> str:
    return ", ".join(map(short, values)) or "none"
