"""The routes of OpenAI's dialect; runs on the owner's loop."""

from __future__ import annotations

from starlette.routing import Route

from tidemill.core.contracts import Served
from tidemill.core.errors import MissingInput, NotOffered
from tidemill.core.generation import Speaks
from tidemill.core.settings import Settings
from tidemill.core.text import short
from tidemill.doors import way
from tidemill.doors.head import Scope
from tidemill.doors.openai import chat, completions, embeddings, responses, tokens
from tidemill.doors.openai.asked import Asked
from tidemill.doors.openai.bounds import NAME_CHARACTERS_MAX, Limits, limits
from tidemill.doors.openai.door import Door, Kind
from tidemill.doors.openai.fields import Fields
from tidemill.serve.answer import Service

BATCHED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""Addresses that a batch may ask."""


def kinds(service: Service) -> dict[str, Kind]:
    """The sorts of requests, by their addresses."""

    def find(scope: Scope, fields: Fields) -> tuple[str, Served]:
        name = fields.text("model", NAME_CHARACTERS_MAX)
        if not name:
            raise MissingInput("model is missing: say which one is asked", param="model")
        return name, way.named(service.fleet, name)

    return {
        "/v1/chat/completions": Kind(read_chat, find, "messages"),
        "/v1/completions": Kind(_completions, find, "prompt"),
        "/v1/responses": Kind(_responses, find, "input"),
        "/v1/embeddings": Kind(_embeddings, find, "input"),
        "/v1/tokenize": Kind(_tokenize, find, "prompt"),
        "/v1/detokenize": Kind(_detokenize, find, "tokens"),
    }


def routes(service: Service, settings: Settings) -> list[Route]:
    bounds = limits(settings)
    return [
        Route(path, Door(service, kind, bounds, settings.access_log), methods=["POST"])
        for path, kind in kinds(service).items()
    ]


def speaks_of(served: Served) -> Speaks:
    """Raises `NotOffered` for a model that does not speak."""
    if served.speaks is None:
        raise NotOffered(f"model {short(served.name)} is no language model; {_other(served)}", param="model")
    return served.speaks


def _other(served: Served) -> str:
    if served.embeds:
        return "it embeds texts: ask it at /v1/embeddings"
    return f"it takes tensors: ask it at /v1/models/{served.name}:predict"


def read_chat(fields: Fields, served: Served, bounds: Limits) -> Asked:
    """`Read` of a chat. Raises the errors of `Fields`, and `NotOffered` for a model that does not speak."""
    return chat.read(fields, speaks_of(served), bounds)


def _completions(fields: Fields, served: Served, bounds: Limits) -> Asked:
    return completions.read(fields, speaks_of(served), bounds)


def _responses(fields: Fields, served: Served, bounds: Limits) -> Asked:
    return responses.read(fields, speaks_of(served), bounds)


def _embeddings(fields: Fields, served: Served, bounds: Limits) -> Asked:
    if not served.embeds:
        speaks = "it speaks: ask it at /v1/chat/completions" if served.speaks else _other(served)
        raise NotOffered(f"model {short(served.name)} does not embed texts; {speaks}", param="model")
    return embeddings.read(fields)


def _tokenize(fields: Fields, served: Served, bounds: Limits) -> Asked:
    return tokens.tokenize(fields, speaks_of(served))


def _detokenize(fields: Fields, served: Served, bounds: Limits) -> Asked:
    return tokens.detokenize(fields, speaks_of(served))
