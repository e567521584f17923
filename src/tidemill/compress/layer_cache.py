"""Solved layers on disk, so that an interrupted run goes on where it was; one file a layer, named by what was asked.

Used in the command line's process. Files appear whole or not at all; one that cannot be read counts as absent.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tidemill.compress.forms import Activation, Codebook, Dense, Form, Planes, Uniform
from tidemill.compress.proto_stream import published
from tidemill.compress.task import LayerResult
from tidemill.core.tensor import Array

Answer: TypeAlias = LayerResult | str
"""A solver's result, or the reason why it refused."""
_FORMS: dict[str, type[Uniform | Codebook | Dense]] = {"Uniform": Uniform, "Codebook": Codebook, "Dense": Dense}


class LayerCache:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Answer | None:
        try:
            # By way of memory: numpy would leave a spoilt file open.
            with np.load(io.BytesIO(self._path(key).read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return _read(json.loads(bytes(arrays["about"])), arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Raises `DiskFull`."""
        arrays: dict[str, Array] = {}
        about = json.dumps(_write(answer, arrays)).encode()
        with published(self._path(key)) as file:
            np.savez(file, about=np.frombuffer(about, np.uint8), allow_pickle=False, **arrays)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"


def _write(answer: Answer, arrays: dict[str, Array]) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"refused": answer}
    if answer.bias is not None:
        arrays["bias"] = answer.bias
    activation = answer.activation
    return {
        "form": _write_form(answer.form, arrays, "form"),
        "activation": activation
        and [float(activation.scale), int(activation.zero_point), int(activation.bits), bool(activation.dynamic)],
        "numbers": [float(answer.error_fit), float(answer.error_held), float(answer.damping)],
        "notes": list(answer.notes),
    }


def _write_form(form: Form, arrays: dict[str, Array], at: str) -> dict[str, Any]:
    if isinstance(form, Planes):
        return {"planes": [_write_form(plane, arrays, f"{at}.{n}") for n, plane in enumerate(form.planes)]}
    fields = {"Dense": ("weight",), "Uniform": ("codes", "scales", "zero_points"), "Codebook": ("codes", "values")}
    kind = type(form).__name__
    for name in fields[kind]:
        arrays[f"{at}.{name}"] = getattr(form, name)
    plain = {"bits": int(form.bits), "block": int(form.block)} if isinstance(form, Uniform) else {}
    return {"kind": kind, "arrays": fields[kind], "plain": plain}


def _read(about: Mapping[str, Any], arrays: Mapping[str, Array]) -> Answer:
    if "refused" in about:
        return str(about["refused"])
    fit, held, damping = about["numbers"]
    return LayerResult(
        _read_form(about["form"], arrays, "form"),
        arrays.get("bias"),
        Activation(*about["activation"]) if about["activation"] else None,
        fit,
        held,
        damping,
        tuple(about["notes"]),
    )


def _read_form(about: Mapping[str, Any], arrays: Mapping[str, Array], at: str) -> Form:
    if "planes" in about:
        planes = [_read_form(plane, arrays, f"{at}.{n}") for n, plane in enumerate(about["planes"])]
        return Planes(tuple(plane for plane in planes if isinstance(plane, Uniform)))
    made: dict[str, Any] = {name: arrays[f"{at}.{name}"] for name in about["arrays"]}
    return _FORMS[about["kind"]](**made, **about["plain"])
