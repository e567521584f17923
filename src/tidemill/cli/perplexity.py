"""`tidemill perplexity`: how well a language model foretells a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import json_option, print_json, setting_options, settled, size

if TYPE_CHECKING:
    from tidemill.assemble.scoring import Perplexity


@click.command("perplexity")
@click.argument("model")
@click.option(
    "--text",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    help="The text, UTF-8; - reads stdin.",
)
@click.option(
    "--window", type=click.IntRange(2), help="Tokens read at once.  [default: the model's context, 2048 at most]"
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    help="How far each window begins behind the one before it.  [default: half a window]",
)
@click.option("--tokens-max", type=click.IntRange(2), help="Read no more than the first so many.  [default: all]")
@setting_options("models", "engine", "threads", "kv_cache_bytes", "text_bytes_max", "export_weights")
@json_option
def perplexity_command(
    model: str, file: Path, window: int | None, stride: int | None, tokens_max: int | None, as_json: bool,
    config: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Measure how well a language model foretells a text: what a quantisation cost, for one.

    e to the mean negative log probability of each token after those before it in its window; the lower, the better.
    Windows overlap (--stride), so that no token but those of the first window has fewer than WINDOW - STRIDE before it;
    each token is scored once, the first of the text never.
    """
    from tidemill.assemble import choose
    from tidemill.assemble.scoring import score
    from tidemill.cli.progress import stages
    from tidemill.core.errors import RefusedModel

    settings, _ = settled(flags, config)
    text = read(file, settings.text_bytes_max)
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    with stages() as progress:
        found = score(
            settings, choice.package, text, window, stride, tokens_max,
            lambda label, done, total: progress(label, done, total, None),
        )  # fmt: skip
    if as_json:
        import msgspec

        print_json({"model": choice.name, "version": choice.version, **msgspec.to_builtins(found)})
    else:
        _print(choice.name, choice.version, found)


def read(file: Path, bytes_max: int) -> str:
    """The text in `file`. Raises `WrongValue` for one that is empty, too long, or no UTF-8."""
    from tidemill.core.errors import WrongValue

    name = "stdin" if str(file) == "-" else str(file)
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise WrongValue(f"{name} cannot be read: {error}") from error
    if len(data) > bytes_max:
        raise WrongValue(
            f"{name} has more than {size(bytes_max)}; read more with --text-bytes-max, or give a part of it"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WrongValue(
            f"{name} is no UTF-8: byte {error.start} is 0x{data[error.start]:02x}; convert it (iconv -t utf-8)"
        ) from error
    if not text.strip():
        raise WrongValue(f"{name} holds no text")
    return text


def _print(name: str, version: int, found: Perplexity) -> None:
    rate = found.scored / found.spent_s if found.spent_s else 0.0
    click.echo(f"{name} version {version}: perplexity {found.perplexity:.3f}")
    click.echo(f"  nats     {found.nats:.4f} a token (standard error {found.error:.4f})")
    click.echo(f"  tokens   {found.tokens}, {found.scored} of them scored")
    click.echo(f"  windows  {found.windows} of {found.window} tokens, {found.stride} apart")
    click.echo(f"  took     {found.spent_s:.1f} s, {rate:.0f} tokens a second")
