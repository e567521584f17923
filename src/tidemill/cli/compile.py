"""`tidemill compile`: builds ahead of time what an engine loads."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from tidemill.cli.common import json_option, print_json, setting_options, settled, size


@click.command("compile")
@click.argument("model")
@click.option("--force", is_flag=True, help="Build it anew, though it is there.")
@setting_options("models", "export_weights", "compiled_bytes_max")
@json_option
def compile_command(model: str, force: bool, as_json: bool, config: Path | None, **flags: Any) -> None:
    """Build, once, what an engine loads of a model, and keep it.

    MODEL is a path or a name in the repository: a language model in Hugging Face's folder (config.json, *.safetensors,
    tokenizer.json), which becomes OpenVINO's IR, with its weights in --export-weights; or a GGUF, which is served as it
    is, but answers many at once sooner with its weights in int8, for twice the memory of a file of four bits. What was
    built is kept in the cache by the digest of its files, of the flags and of the versions of what built it; `serve`
    finds it there. Interrupted, it leaves nothing; the same command begins anew.
    """
    from tidemill.assemble import choose
    from tidemill.assemble.compiling import compiled
    from tidemill.cli.progress import stages
    from tidemill.core.errors import RefusedModel

    settings, _ = settled(flags, config)
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    with stages() as progress:
        found = compiled(settings, choice.package, force, lambda label, done, total: progress(label, done, total, None))
    if as_json:
        import msgspec

        print_json({"name": choice.name, "version": choice.version, **msgspec.to_builtins(found, enc_hook=str)})
        return
    told = "was there already" if found.reused else f"was built in {found.spent_s:.0f} s"
    click.echo(f"{choice.name} version {choice.version} {told}")
    click.echo(f"  weights  {found.weights}: {size(found.source_bytes)} → {size(found.size_bytes)} in all")
    click.echo(f"  apart    {found.nats:.4f} nats a token from its source")
    click.echo(f"  path     {found.path}")
    weights = "" if flags["export_weights"] is None else f" --export-weights {found.weights}"
    where = "" if flags["models"] is None else f" --models {shlex.quote(str(flags['models']))}"
    click.echo(f"serve it: tidemill serve {shlex.quote(model)}{weights}{where}")
