"""`tidemill ls` and `tidemill show`: the repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import REFUSED, json_option, print_json, print_table, setting_options, settled, size, units
from tidemill.cli.remote import ask, remote_options

if TYPE_CHECKING:
    from tidemill.core.package import ModelPackage
    from tidemill.core.settings import Settings

PRICES = ("call_nanos", "prompt_token_nanos", "completion_token_nanos", "cached_token_nanos")


@click.command("ls")
@remote_options
@setting_options("models", "aliases")
@json_option
def ls_command(url: str | None, key: str | None, as_json: bool, config: Path | None, **flags: Any) -> None:
    """List the models of the repository with their versions, or those of a running server (--url)."""
    if url:
        _list_served(ask(url, key, "GET", "models")["models"], as_json)
        return
    from tidemill.core.errors import RefusedModel
    from tidemill.repository import layout

    settings, _ = settled(flags, config)
    called = _called(settings)
    rows = []
    for name in layout.names(settings.models):
        for version, path in layout.versions(settings.models / name).items():
            try:
                package = layout.package(name, version, path)
                row = {
                    "name": name, "version": version, "format": package.format, "size_bytes": package.size_bytes,
                    "source": package.source, "reason": "", "aliases": called(name),
                }  # fmt: skip
            except RefusedModel as error:
                row = {
                    "name": name,
                    "version": version,
                    "format": "",
                    "size_bytes": 0,
                    "source": "",
                    "reason": error.message,
                    "aliases": called(name),
                }
            rows.append(row)
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(f"{settings.models} holds no models; `tidemill demo` fetches some")
    else:
        cells = [
            (
                _named(str(row["name"]), called(str(row["name"]))),
                row["version"],
                row["format"] or "refused",
                size(int(str(row["size_bytes"]))),
                row["reason"] or row["source"],
            )
            for row in rows
        ]
        print_table(("model", "version", "format", "size", "source"), cells, right=("version", "size"))


def _list_served(models: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(models)
        return
    cells = []
    for model in models:
        for version in model["versions"]:
            labels = ", ".join(label for label, number in model["labels"].items() if number == version["version"])
            shown = size(version["size_bytes"]) if version["size_bytes"] else ""
            state = version["state"] or ("unloaded" if model["unloaded"] else "not loaded")
            name = _named(model["name"], model["aliases"])
            cells.append((name, version["version"], state, labels, shown, version["reason"]))
    print_table(("model", "version", "state", "labels", "size", "reason"), cells, right=("version", "size"))


def _called(settings: Settings) -> Callable[[str], list[str]]:
    """The aliases of a model."""
    from tidemill.core.aliases import aliases_of, names_for

    aliases = aliases_of(settings.aliases)
    return lambda name: names_for(name, aliases)


def _named(name: str, aliases: Sequence[str]) -> str:
    """A model's name with its others behind it."""
    return f"{name} ({', '.join(aliases)})" if aliases else name


@click.command("show")
@click.argument("model")
@setting_options("models", "aliases", "engine", "threads", "max_batch", "signatures_max", *PRICES)
@json_option
def show_command(model: str, as_json: bool, config: Path | None, **flags: Any) -> int:
    """Show a model: versions, signature, engine, how it batches, price.

    MODEL is a name in the repository, an alias or a path. Loads it, as `serve` would; exits with 3 when a version is
    refused.
    """
    from tidemill.assemble import choose
    from tidemill.core.errors import TidemillError

    settings, _ = settled({**flags, "version_policy": "all"}, config)
    called = _called(settings)
    shown = []
    for choice in choose(settings, [model]):
        told: dict[str, Any] = {"name": choice.name, "version": choice.version, "reason": choice.reason}
        told["aliases"] = called(choice.name)
        if choice.package is not None:
            try:
                told |= _told(settings, choice.package)
            except TidemillError as error:
                told["reason"] = error.message
            except TimeoutError:
                told["reason"] = f"it was not loaded within {settings.load_timeout_s:g} s (--load-timeout-s)"
        shown.append(told)
    if as_json:
        print_json(shown)
    else:
        for told in shown:
            _print(told)
    return REFUSED if any(told["reason"] for told in shown) else 0


def _told(settings: Settings, package: ModelPackage) -> dict[str, Any]:
    """Loads it, and gives the engine back. Raises what its engine does, and `TimeoutError`."""
    import msgspec

    from tidemill.cli.try_model import opened

    engine, replica, warm_up_s = opened(settings, package, settings.signatures_max)
    if engine is not None:
        engine.close()
    return {
        "engine": replica.engine_name,
        "format": package.format,
        "path": package.path,
        "size_bytes": package.size_bytes,
        "source": package.source,
        "inputs": [msgspec.to_builtins(spec) for spec in replica.signature.inputs],
        "outputs": [msgspec.to_builtins(spec) for spec in replica.signature.outputs],
        "signature": replica.signature.name,
        "further_signatures": [
            {
                "name": each.name,
                "method": each.method,
                "inputs": [msgspec.to_builtins(spec) for spec in each.inputs],
                "outputs": [msgspec.to_builtins(spec) for spec in each.outputs],
                "batched": each.name in replica.joined,
            }
            for each in replica.signature.further
        ],
        "left_out_signatures": dict(replica.signature.left_out),
        "reads": list(replica.accepts),
        "embeds": replica.embedder
        and {
            "dimensions": replica.embedder.dimensions,
            "tokens_max": replica.embedder.wish.tokens_max,
        },
        "speaks": None if replica.speaks is None else msgspec.to_builtins(replica.speaks),
        "upstreams": [each.url for each in package.config.remote.upstream] if package.config.remote else [],
        "stages": [stage.model for stage in package.config.stage],
        "batched": replica.batched,
        "singly": replica.singly,
        "max_batch": replica.rows_max if replica.batched else 1,
        "warm_up_requests": replica.warmed,
        "price_nanos": replica.tariff.call_nanos,
        "prompt_token_nanos": replica.tariff.prompt_token_nanos,
        "completion_token_nanos": replica.tariff.completion_token_nanos,
        "cached_token_nanos": replica.tariff.cached_token_nanos,
        "price": replica.tariff.words(units),
        "warm_up_s": warm_up_s if warm_up_s < float("inf") else None,
    }


def _print_tensors(told: dict[str, Any]) -> None:
    for kind in ("inputs", "outputs"):
        for spec in told[kind]:
            shape = "any shape" if spec["shape"] is None else list(spec["shape"])
            click.echo(f"  {kind[:-1]:7}  {spec['name']} {spec['datatype']} {shape}")


def _print(told: dict[str, Any]) -> None:
    click.echo(f"{_named(told['name'], told['aliases'])} version {told['version']}")
    if told["reason"]:
        click.echo(f"  refused  {told['reason']}")
        return
    quickest = "" if told["warm_up_s"] is None else f", {told['warm_up_s'] * 1000:.2f} ms for one row"
    click.echo(f"  engine   {told['engine']} ({told['format']}, {size(told['size_bytes'])}{quickest})")
    click.echo(f"  path     {told['path']}")
    if told["source"]:
        click.echo(f"  source   {told['source']}")
    several = told["further_signatures"] or told["left_out_signatures"]
    if several:
        click.echo(f"  serves   signature {told['signature']!r} for those who name none")
    _print_tensors(told)
    for each in told["further_signatures"]:
        alone = "" if each["batched"] else ", one request at a time"
        click.echo(f"  serves   signature {each['name']!r} too ({each['method']}{alone})")
        _print_tensors(each)
    for name, reason in told["left_out_signatures"].items():
        click.echo(f"  leaves   signature {name!r}: {reason}")
    speaks = told["speaks"]
    if speaks is not None:
        chats = "a chat or a text" if speaks["chats"] else "a text"
        click.echo(f"  speaks   after {chats}; prompt and answer have {speaks['context_tokens']} tokens together")
    if told["reads"]:
        click.echo(f"  reads    {', '.join(told['reads'])}")
    if embeds := told["embeds"]:
        click.echo(f"  embeds   texts of up to {embeds['tokens_max']} tokens in {embeds['dimensions']} numbers")
    if asked := told["upstreams"] or told["stages"]:
        click.echo(f"  asks     {', '.join(asked)}")
    alone = f"one request at a time: {told['singly']}"
    batching = f"up to {told['max_batch']} rows together" if told["batched"] else alone
    if told["upstreams"]:
        batching = "those who answer do"
    elif speaks is not None:
        batching = "every answer under way, step by step"
    click.echo(f"  batches  {'each stage on its own' if told['stages'] else batching}")
    if warmed := told["warm_up_requests"]:
        click.echo(f"  warm-up  {warmed} {'request' if warmed == 1 else 'requests'} that it brings, answered")
    click.echo(f"  price    {told['price']}")
