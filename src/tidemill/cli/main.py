"""The `tidemill` command: finds the verb, turns errors into exit codes. `--help` loads nothing heavy."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from tidemill import __version__
from tidemill.core.errors import InvalidRecipe, InvalidSetting, MissingPart, QualityLost, TidemillError

DONE, FAILED, MISUSE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done, failed, misuse, finished but a check refused, interrupted."""

VERBS = {
    "demo": "demo",
    "serve": "serve",
    "try": "try_model",
    "chat": "chat",
    "perplexity": "perplexity",
    "compress": "compress",
    "compile": "compile",
    "bench": "bench",
    "ls": "models",
    "show": "models",
    "load": "load",
    "unload": "load",
    "keys": "keys",
    "usage": "usage",
    "settings": "settings",
    "doctor": "doctor",
    "completion": "completion",
}
"""Verb -> module of this folder that holds it, as `verb` or `verb_command`."""


class Verbs(click.Group):
    """Imports a verb's module when the verb is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"tidemill.cli.{VERBS[cmd_name]}"), f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a hint where a word is nearly one of ours."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], VERBS, n=1)
            if near and args[0] not in VERBS:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tidemill")
def tidemill() -> None:
    """A trained model in, a metered public service out.

    Five minutes: `tidemill demo` fetches small real models, serves them and prints what to try.
    """


LIBRARIES = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0", "OPENBLAS_NUM_THREADS": "1"}
"""gRPC would write lines of its own between ours; the arrays of one request are too small to share among threads."""


def main() -> None:
    """The entry point of the command."""
    prepare()
    sys.exit(run(sys.argv[1:]))


def prepare() -> None:
    """To be called before anything heavy is imported."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)


def run(arguments: list[str]) -> int:
    """The exit code of `tidemill ARGUMENTS`."""
    try:
        code = tidemill.main(arguments, prog_name="tidemill", standalone_mode=False)
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return MISUSE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except TidemillError as error:
        click.echo(f"tidemill: {error.message} ({error.code})", err=True)
        if isinstance(error, QualityLost):
            return REFUSED
        return MISUSE if isinstance(error, InvalidSetting | InvalidRecipe | MissingPart) else FAILED
    return code if isinstance(code, int) else DONE
