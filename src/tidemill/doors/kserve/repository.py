"""V2's repository calls: the index in Triton's words, and loading and unloading; on the owner's loop.

Both wires come here with plain values. Whoever calls has been recognised as an admin.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tidemill.core.contracts import Models
from tidemill.core.errors import InvalidSetting, MalformedRequest, NotOffered, TidemillError
from tidemill.core.package import Indexed, VersionPolicy
from tidemill.core.text import short
from tidemill.doors.kserve import model_config
from tidemill.repository import triton_config
from tidemill.serve.answer import Service

log = logging.getLogger(__name__)

STATES = {"AVAILABLE": "READY", "LOADING": "LOADING", "UNLOADING": "UNLOADING"}
"""TensorFlow Serving's word, which the fleet uses -> Triton's; all others are UNAVAILABLE."""


def models(service: Service) -> Models:
    """Raises `NotOffered` where nothing can be loaded."""
    if service.models is None:
        raise NotOffered("this service loads and unloads no models while it runs")
    return service.models


def policy(service: Service, name: str) -> VersionPolicy | None:
    """Of the versions of `name`, which is served; None where nothing can be loaded."""
    return service.models.policy(name) if service.models is not None else None


def index(service: Service, ready: bool) -> list[dict[str, str]]:
    """Every version known; those that serve alone where `ready`."""
    told = [_entry(each) for each in models(service).index()]
    return [entry for entry in told if entry["state"] == "READY"] if ready else told


def _entry(each: Indexed) -> dict[str, str]:
    state = STATES.get(each.state, "UNAVAILABLE")
    reason = each.reason or ("" if each.state else "not loaded")
    return {"name": each.name, "version": str(each.version), "state": state, "reason": reason}


async def load(service: Service, name: str, parameters: Mapping[str, Any]) -> None:
    """What a configuration says of a model that serves is held against it before anything is touched; one that did not
    serve is given back when it turns out to be another.
    """
    holder = models(service)
    text = _config(parameters)
    if text is None:
        await holder.load(name)
        return
    understood, said = triton_config.of_json(text, name)
    for note in understood.notes:
        log.info("without effect: %s", note, extra={"model": name})
    served = _served(service, name)
    if served:
        model_config.check(said, understood.config, service.fleet.find(name))
    await holder.load(name, understood.config)
    if not served:
        try:
            model_config.check(said, understood.config, service.fleet.find(name))
        except InvalidSetting:
            await holder.unload(name)
            raise


async def unload(service: Service, name: str, parameters: Mapping[str, Any]) -> None:
    """`unload_dependents` asks for nothing more: no model here brings others along."""
    for each, value in parameters.items():
        if each != "unload_dependents" or type(value) is not bool:
            raise MalformedRequest(
                f"parameter {short(each)} is {short(value)}; an unload takes unload_dependents, a bool"
            )
    await models(service).unload(name)


def _config(parameters: Mapping[str, Any]) -> str | None:
    for name in parameters:
        if name.startswith("file:"):
            raise NotOffered(
                f"parameter {short(name)}: files are not taken over the wire; put the model into the repository of this"
                " server and load it by its name"
            )
        if name != "config":
            raise MalformedRequest(f"parameter {short(name)} is not known; a load takes config")
    text = parameters.get("config")
    if text is not None and not isinstance(text, str):
        raise MalformedRequest(f"parameter config is {short(text)}, expected the JSON of a ModelConfig as a string")
    return text


def _served(service: Service, name: str) -> bool:
    try:
        service.fleet.find(name)
    except TidemillError:
        return False
    return True
