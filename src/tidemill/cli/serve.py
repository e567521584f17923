"""`tidemill serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from tidemill.cli import repository, tf_files, tf_words
from tidemill.cli.common import json_option, setting_options, settled

if TYPE_CHECKING:
    from tidemill.assemble import Owner


class Serve(click.Command):
    """Understands TensorFlow Serving's start line too."""

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.meta.get(START_LINE) is None:
            return super().invoke(ctx)
        return _start(ctx.meta[START_LINE])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not tf_words.is_start_line(args):
            return super().parse_args(ctx, args)
        ctx.meta[START_LINE] = args
        return []


START_LINE = "tidemill.start_line"


@click.command("serve", cls=Serve)
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@setting_options(models=("--model-repository",))
@json_option
def serve_command(names: tuple[str, ...], as_json: bool, config: Path | None, **flags: Any) -> None:
    """Serve models over REST and gRPC until SIGTERM.

    MODEL is a path (a model file, its folder, or a folder of versions) or a name in the repository; with none, the
    whole repository is served; NAME=PATH gives a path another name. Prints where, and one line of JSON with --json,
    once every model is loaded. TensorFlow Serving's start line works as it is: --model_name, --model_base_path, ...
    """
    from tidemill import assemble
    from tidemill.observe import log

    settings, origins = settled(flags, config)
    repository.check(settings, origins)
    log.set_up(settings.log_format, settings.log_level)
    assemble.serve(settings, names, ready_json if as_json else banner)


def _start(arguments: list[str]) -> None:
    from tidemill import assemble
    from tidemill.observe import log

    line = tf_files.read(tf_words.read(arguments))
    settings, origins = settled(line.flags, None)
    repository.check(settings, origins)
    log.set_up(settings.log_format, settings.log_level)
    for note in line.notes:
        click.echo(note, err=True)
    assemble.serve(settings, line.models, banner_of_start_line)


def ready_json(owner: Owner) -> None:
    """One line, which is whole when it ends: for those who start a service and wait for it."""
    service = owner.view.overview()["service"]
    click.echo(orjson.dumps({**service, "console_port": owner.console.port}))


def banner(owner: Owner) -> None:
    """What a person wants to know first."""
    settings = owner.settings
    click.echo(f"REST     {owner.http_url}")
    click.echo(f"gRPC     {settings.grpc_host or settings.host}:{owner.grpc_port}")
    for port in owner.alias_ports:
        click.echo(f"both     {settings.host}:{port}")
    _say_besides(owner)


def banner_of_start_line(owner: Owner) -> None:
    """As `banner`, with the ports that were asked for: each of them answers REST and gRPC."""
    settings = owner.settings
    for port in (owner.http_port, *owner.alias_ports):
        click.echo(f"{'gRPC' if port == settings.port else 'REST':7}  {settings.host}:{port}")
    _say_besides(owner)


def _say_besides(owner: Owner) -> None:
    from tidemill.deploy.local import State

    if owner.settings.grpc_socket_path:
        click.echo(f"gRPC     unix:{owner.settings.grpc_socket_path}")
    if owner.console.port:
        click.echo(f"console  {owner.http_url}/console")
    replicas = owner.fleet.replicas()
    serving = [each for each in replicas if each.state is State.AVAILABLE]
    for each in replicas:
        if each.state is State.AVAILABLE:
            takes = ", ".join(map(str, each.signature.inputs))
            if each.speaks is not None:
                takes = f"words, {each.speaks.context_tokens} tokens{', chat' if each.speaks.chats else ''}"
            click.echo(f"model    {each.name} version {each.version} on {each.engine_name}: {takes}")
        else:
            click.echo(click.style(f"refused  {each.name} version {each.version}: {each.reason}", fg="red"))
    if not serving and not replicas:
        hint = "name one (`tidemill serve PATH`), or fill --models DIR with DIR/NAME/VERSION/..."
        click.echo(f"no model is served: {hint}")
    elif not serving:
        click.echo("no model is served: each was refused, for the reason above")
