"""Opens a model's further signatures, so far as its engine can run them; on the thread that loads the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tidemill.core.contracts import Engine, Signs
from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Signature
from tidemill.engine.probe import keeps_rows_apart
from tidemill.repository import saved_model

log = logging.getLogger(__name__)

SIGNATURES_MAX = 16
"""What `--signatures-max` says where nobody does."""


class Further(NamedTuple):
    """One of them: an engine for each of the model's, in their order, and whether the rows of a batch are answered as
    they are alone."""

    engines: tuple[Engine, ...]
    rows_apart: bool


def chosen(package: ModelPackage, signature: Signature, signatures_max: int) -> tuple[list[str], dict[str, str]]:
    """The names to be opened beside `signature`, and of each that is not, why. At most `signatures_max` are served with
    it."""
    wish = package.config.signatures
    names = [name for name in (signature.others if wish is None else dict.fromkeys(wish)) if name != signature.name]
    wanted = [name for name in names if name in signature.others]
    left_out = {name: "its tidemill.toml names other `signatures`" for name in signature.others if name not in names}
    left_out |= {name: "its tidemill.toml names it, and its file has none" for name in names if name not in wanted}
    left_out |= dict.fromkeys(
        wanted[signatures_max - 1 :], f"{signatures_max} of one model are served at most (--signatures-max)"
    )
    return wanted[: signatures_max - 1], left_out


def opened(
    engines: Sequence[Engine], package: ModelPackage, signatures_max: int = SIGNATURES_MAX
) -> tuple[Signature, dict[str, Further]]:
    """The signature of `engines`, which are one model, with what is said of those beside it, and these, by name."""
    first = engines[0]
    names, left_out = chosen(package, first.signature, signatures_max)
    found: dict[str, Further] = {}
    for name in names:
        if not isinstance(first, Signs):
            left_out[name] = "this engine runs one signature of a model"
            continue
        try:
            found[name] = _open(engines, package, name)
        except TidemillError as error:
            left_out[name] = error.message
        except Exception as error:
            log.exception("the engine failed to load signature %r of %s", name, package.name)
            left_out[name] = f"the engine failed to load it: {type(error).__name__}: {error}"
    further = tuple(msgspec.structs.replace(each.engines[0].signature, others=()) for each in found.values())
    said = tuple(sorted(left_out.items()))
    return msgspec.structs.replace(first.signature, further=further, left_out=said), found


def _open(engines: Sequence[Engine], package: ModelPackage, name: str) -> Further:
    made: list[Engine] = []
    try:
        for engine in engines:
            assert isinstance(engine, Signs)  # noqa: S101 - they are engines of one kind
            made.append(engine.signed(name))
        return Further(tuple(made), _rows_apart(made[0], package, name))
    except BaseException:
        for each in made:
            each.close()
        raise


def _rows_apart(engine: Engine, package: ModelPackage, name: str) -> bool:
    """Asked as the model's own signature is, unless asking would change the model: then its requests run singly."""
    if not engine.signature.batched:
        return True
    if package.format == "savedmodel":
        try:
            if saved_model.changes(package.path, name):
                return False
        except RefusedModel:
            return False
    if package.config.batching.batched is not None:
        return True
    apart = keeps_rows_apart(engine)
    if not apart:
        log.warning(
            "the rows of a batch are not kept apart: requests for signature %r run singly", name,
            extra={"model": package.name},
        )  # fmt: skip
    return apart
