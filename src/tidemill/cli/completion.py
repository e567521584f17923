"""`tidemill completion`: what a shell needs to complete words of the command line."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print a script that lets SHELL complete verbs, flags and their values.

    For this shell alone: eval "$(tidemill completion bash)", or tidemill completion fish | source. For good, write it
    to ~/.local/share/bash-completion/completions/tidemill, to a folder of zsh's $fpath as _tidemill, or to
    ~/.config/fish/completions/tidemill.fish.
    """
    from click.shell_completion import get_completion_class

    from tidemill.cli.main import tidemill

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click knows the three
    complete = made(tidemill, {}, "tidemill", "_TIDEMILL_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())
