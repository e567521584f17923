"""What `tidemill doctor` finds in ensembles: stages that nobody serves, circles, tensors that cannot pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings

if TYPE_CHECKING:
    from tidemill.core.package import ModelPackage, Stage
    from tidemill.core.tensor import Signature

Known = Mapping[tuple[str, int], "Signature"]
"""Name and version -> what the engine said, for models that were opened."""


def ensembles(settings: Settings, known: Known | None = None) -> Iterator[str]:
    """One line for each thing that is wrong. Without `known`, files tell what the models take and give; of those whose
    files do not, nothing is said."""
    from tidemill import assemble
    from tidemill.deploy import stages
    from tidemill.repository.look import look

    entries = assemble.entries(settings, [])
    choices = assemble.chosen(settings, entries)
    labels = {each.name: look(each).labels for each in entries}
    packages: dict[str, dict[int, ModelPackage | None]] = {}
    for choice in choices:
        packages.setdefault(choice.name, {})[choice.version] = choice.package
    chains = {name: _chain(versions[max(versions)]) for name, versions in packages.items()}
    for name, versions in packages.items():
        for version, package in versions.items():
            if package is None or package.config.engine != stages.ENSEMBLE:
                continue
            where = f"model {name} version {version}: "
            asked = package.config.stage
            found = [_gone(number, each, packages, labels) for number, each in enumerate(asked, 1)]
            if not any(found):
                try:
                    stages.check(name, {**chains, name: _chain(package)})
                except TidemillError as error:
                    found = [f"{error.message}; let one of them ask another model"]
            lines = list(filter(None, found)) or _misfits(package, packages, labels, known or {})
            yield from (where + line for line in lines)


def _chain(package: ModelPackage | None) -> tuple[str, ...]:
    return () if package is None else tuple(stage.model for stage in package.config.stage)


def _gone(
    number: int,
    stage: Stage,
    packages: Mapping[str, Mapping[int, ModelPackage | None]],
    labels: Mapping[str, Mapping[str, int]],
) -> str:
    """Why no version answers for `stage`; "" where one does."""
    asks = f"stage {number} asks {stage.model!r}"
    versions = packages.get(stage.model)
    if versions is None:
        return f"{asks}, which is not served here; serve it too (served are {', '.join(sorted(packages))})"
    if stage.label is not None and stage.label not in labels[stage.model]:
        there = ", ".join(sorted(labels[stage.model])) or "none"
        return f"{asks} with the label {stage.label!r}; its labels are {there}: give it that one, or name another"
    version = _version(stage, versions, labels)
    if version not in versions:
        there = ", ".join(map(str, sorted(versions)))
        return f"{asks} in version {version}, and served are {there}; widen its version_policy, or name one of those"
    if versions[version] is None:
        return f"{asks}, whose version {version} is refused; see there"
    return ""


def _version(stage: Stage, versions: Mapping[int, object], labels: Mapping[str, Mapping[str, int]]) -> int:
    if stage.label is not None:
        return labels[stage.model][stage.label]
    if stage.version is not None:
        return stage.version
    return max([version for version, package in versions.items() if package is not None] or versions)


def _misfits(
    package: ModelPackage,
    packages: Mapping[str, Mapping[int, ModelPackage | None]],
    labels: Mapping[str, Mapping[str, int]],
    known: Known,
) -> list[str]:
    from tidemill.deploy.fitting import misfits

    own = _signature(package)

    def of(stage: Stage) -> Signature | None:
        versions = packages[stage.model]
        version = _version(stage, versions, labels)
        found = versions[version]
        return known.get((stage.model, version)) or (None if found is None else _signature(found))

    return [] if own is None else list(misfits(own, package.config.stage, of))


def _signature(package: ModelPackage) -> Signature | None:
    """What the files say, None where they do not, or where what they say is refused (which is told elsewhere)."""
    from tidemill.engine import declared
    from tidemill.repository import onnx_files

    try:
        if package.format in ("ensemble", "echo"):
            return declared.signature(package)
        return onnx_files.signature(package.path) if package.format == "onnx" else package.signature
    except TidemillError:
        return None
