"""What is wanted of a model against what stands of it, as the next step from one to the other; pure.

New versions are loaded beside what serves, and what is wanted no more leaves only when something that is wanted
serves in its stead: TensorFlow Serving's availability-preserving policy.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import NamedTuple


class Stands(NamedTuple):
    """A version of the running service: what it was made from at the last attempt, and whether it serves."""

    stamp: Hashable
    serves: bool


class Load(NamedTuple):
    """Load `version` beside what serves; one that serves under its number is replaced when that went well."""

    version: int


class Unload(NamedTuple):
    version: int


def next_step(wanted: Mapping[int, Hashable], standing: Mapping[int, Stands]) -> Load | Unload | None:
    """The next step, None when there is nothing to do. `wanted` maps versions to their stamps.

    A version that was tried with its stamp is not tried again, whether it serves or not. Newest first.
    """
    for version in sorted(wanted, reverse=True):
        if version not in standing or standing[version].stamp != wanted[version]:
            return Load(version)
    served = not wanted or any(standing[version].serves for version in wanted)
    for version in sorted(standing):
        if version not in wanted and (served or not standing[version].serves):
            return Unload(version)
    return None


def settled(
    stamp: Hashable, whole: bool | None, before: tuple[Hashable, float] | None, now: float, settle_s: float
) -> bool:
    """Whether a version on disk is no longer being written.

    A manifest decides where there is one; else what was seen `before` (a stamp, and since when) has not changed for
    `settle_s`.
    """
    if whole is not None:
        return whole
    return before is not None and before[0] == stamp and now - before[1] >= settle_s


def assigned(
    wanted: Mapping[str, int], held: Mapping[str, int], serving: Collection[int], free: bool
) -> tuple[dict[str, int], list[str]]:
    """Label -> version, and what is wrong: a label stands for a served version only, unless `free`. One that would
    leave a served version for one that is not stays where it was."""
    labels, trouble = {}, []
    for label, version in sorted(wanted.items()):
        labels[label] = version
        if free or version in serving:
            continue
        trouble.append(f"label {label!r} stands for version {version}, which is not served")
        if held.get(label) in serving:
            labels[label] = held[label]
    return labels, trouble
