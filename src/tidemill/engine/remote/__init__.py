"""The engine `remote`: any server that speaks OpenAI's protocol, KServe's V2 or TensorFlow Serving's as a model here.

Runs on the owner's loop. Layers: `choice` decides, `openai`, `v2` and `tfs` translate, `upstreams` asks, `model`
answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import orjson

from tidemill.core.errors import RefusedModel, TidemillError
from tidemill.core.generation import Speaks
from tidemill.core.package import ModelPackage, Remote
from tidemill.core.settings import Settings
from tidemill.core.tensor import Signature
from tidemill.engine.remote import openai, tfs, v2
from tidemill.engine.remote.counting import Counting
from tidemill.engine.remote.model import RemoteModel
from tidemill.engine.remote.place import Place
from tidemill.engine.remote.upstreams import Upstreams

METADATA_S_MAX = 10.0
"""What upstreams may take, while a model is loaded, to say what it is."""


async def load(package: ModelPackage, settings: Settings) -> RemoteModel:
    """Raises `RefusedModel`: for a `[remote]` that cannot be, and where a model of tensors declares no signature and no
    upstream tells one. One that speaks needs no upstream to be loaded."""
    wish = package.config.remote
    if wish is None:
        raise RefusedModel("a model on the engine `remote` needs [remote] in its tidemill.toml")
    speaking = wish.protocol == "openai"
    if speaking and not (wish.generates or wish.embeds):
        raise RefusedModel("[remote] says that the model neither generates nor embeds: nothing could be asked of it")
    folder = package.path if package.path.is_dir() else package.path.parent
    # Whoever writes a line for each request with its address need not do so for ours.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def built() -> tuple[Upstreams, Counting]:
        return Upstreams(package.name, wish, folder, _health(wish)), Counting(wish.tokenizer, Path(folder))

    upstreams, counting = await asyncio.to_thread(built)
    try:
        speaks, signature = None, Signature(package.config.inputs, package.config.outputs)
        if not speaking and not (signature.inputs and signature.outputs):
            signature = await _signature(wish, upstreams)
        elif speaking and wish.generates:
            context = await _context_tokens(wish, upstreams)
            calls = wish.chats and wish.tools == "native"
            speaks = Speaks(context, counting.vocabulary, wish.chats, tools=calls, calls=calls, schemas=wish.chats)
        return RemoteModel(package.name, wish, upstreams, counting, speaks, signature)
    except BaseException:
        await upstreams.close()
        raise


def _health(wish: Remote) -> Callable[[Place], str]:
    if wish.protocol == "openai":
        return lambda place: openai.MODELS
    if wish.protocol == "v2":
        return lambda place: v2.HEALTH
    return lambda place: tfs.health_path(quote(place.model, safe=""))


async def _signature(wish: Remote, upstreams: Upstreams) -> Signature:
    metadata_path, read = (
        (v2.metadata_path, v2.signature) if wish.protocol == "v2" else (tfs.metadata_path, tfs.signature)
    )

    def path(place: Place) -> str:
        return metadata_path(quote(place.model, safe=""))

    try:
        _, body = await upstreams.fetch(path, METADATA_S_MAX)
        return read(body)
    except TidemillError as error:
        raise RefusedModel(
            f"no upstream tells what the model takes ({error.message}); start one, or declare [[inputs]], [[outputs]]"
        ) from error


async def _context_tokens(wish: Remote, upstreams: Upstreams) -> int:
    """What an upstream says (vLLM and Tidemill do) where that is less than what the operator does."""
    try:
        place, body = await upstreams.fetch(lambda place: openai.MODELS, METADATA_S_MAX)
        told = orjson.loads(body)["data"]
        most = next(each.get("max_model_len") for each in told if each.get("id") == place.model)
    except (TidemillError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, StopIteration):
        return wish.context_tokens
    return min(most, wish.context_tokens) if isinstance(most, int) and most > 0 else wish.context_tokens
