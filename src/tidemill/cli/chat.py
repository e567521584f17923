"""`tidemill chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common import json_option, setting_options, settled
from tidemill.cli.remote import remote_options, trust

if TYPE_CHECKING:
    from tidemill.cli.chat_told import Told
    from tidemill.client.chat import Conversation

OWN = ("models", "engine", "threads")
"""Settings of the service that chat starts itself."""
INTERRUPTED = 130
PROMPT = "> "
HELP = "/clear begins anew, /exit or Ctrl-D ends; Ctrl-C stops an answer, and ends the chat where none is being given"
COMMANDS = ("/clear", "/exit", "/help")
URL_HELP = "Talk to a running server of OpenAI's dialect: http://HOST:PORT, with or without /v1."


def _remote(function: Any) -> Any:
    return remote_options(function, url_help=URL_HELP, whose_key="Key")


@click.command("chat")
@click.argument("model")
@_remote
@click.option("--system", help="What the model is told before all else.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), help="0 takes the likeliest words.  [default: the server's]"
)
@click.option("--max-tokens", type=click.IntRange(1), help="Of one answer, at most.  [default: the server's]")
@click.option("--timeout-seconds", type=click.FloatRange(0.1, 3600), default=120.0, show_default=True,
              help="A server that says nothing for so long is given up.")  # fmt: skip
@setting_options(*OWN)
@json_option
def chat_command(model: str, url: str | None, key: str | None, config: Path | None, **flags: Any) -> int | None:
    """Talk to a language model: its words as they come.

    MODEL is served for the purpose as `tidemill serve MODEL` would, on a free port; with --url it is the name of a
    model that a running server has. In a terminal Ctrl-C stops an answer, not the chat; /clear forgets what was said,
    /exit ends. Of a pipe each line is a question: answers go to stdout, with --json as one object a line. What an
    answer took is told on stderr.
    """
    from tidemill.cli.chat_told import Told
    from tidemill.client import chat, price
    from tidemill.core.errors import InvalidSetting

    if url == "":
        raise InvalidSetting("--url is empty: give a URL, or leave it out")
    for name in ("temperature", "timeout_seconds"):
        if flags[name] is not None and isnan(flags[name]):
            raise InvalidSetting(f"--{name.replace('_', '-')} is NaN: give a number")
    with contextlib.ExitStack() as stack:
        if url is None:
            url, model = stack.enter_context(_served(model, config, flags))
        else:
            _own_settings_are_not_given(flags)
        http = stack.enter_context(chat.client(url, key, flags["timeout_seconds"], trust()))
        names = chat.listed(http)
        if model.partition("@")[0] not in {name.partition("@")[0] for name in names}:
            _note(f"{url} does not list {model!r}; it lists {', '.join(names[:20]) or 'none'}")
        body: dict[str, Any] = {"model": model}
        body |= {name: flags[name] for name in ("temperature", "max_tokens") if flags[name] is not None}
        talk = chat.Conversation(http, body, flags["system"] or "")
        told = Told(talk, price.tariff(http, model), flags["as_json"])
        if sys.stdin.isatty():
            return _in_terminal(talk, told)
        _of_pipe(talk, told)
        return None


@contextlib.contextmanager
def _served(model: str, config: Path | None, flags: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A service of our own: its URL, and the model's name there."""
    from tidemill.assemble import choose
    from tidemill.cli.own_service import own_service
    from tidemill.core.errors import RefusedModel

    given = {name: flags[name] for name in OWN}
    settings, _ = settled(given, config)
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    words = [] if config is None else ["--config", str(config)]
    for name, value in given.items():
        words += [] if value is None else ["--" + name.replace("_", "-"), str(value)]
    _note(f"starting a service for {choice.name} version {choice.version}")
    with own_service(model, words, "chat") as service:
        yield service.http_url, choice.name


def _own_settings_are_not_given(flags: dict[str, Any]) -> None:
    from tidemill.core.errors import InvalidSetting

    for name in OWN:
        if flags[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise InvalidSetting(f"{flag} is for a service that chat starts; the one at --url has its own settings")


def _in_terminal(talk: Conversation, told: Told) -> int | None:
    """Until Ctrl-D, /exit, or a Ctrl-C while nothing is being answered."""
    from tidemill.core.errors import ServerRefused

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - `input` edits its line and recalls those before by it
    _note(HELP)
    while True:
        try:
            question = _read()
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo(err=True)
            return INTERRUPTED
        if question == "/exit":
            return None
        if question == "/clear":
            talk.clear()
            _note("forgotten")
        elif question == "/help" or (question.startswith("/") and question[1:].isalpha()):
            _note(HELP if question == "/help" else f"there is no {question}; {HELP}")
        elif question:
            try:
                told.answer(question)
            except KeyboardInterrupt:
                told.stopped()
            except ServerRefused as error:
                told.refused(error.message)


def _read() -> str:
    """A line of the terminal. What is no UTF-8 in it becomes a question mark. Raises `EOFError`."""
    if sys.stdout.isatty():
        line = input(PROMPT)
    else:  # stdout holds answers alone
        click.echo(PROMPT, err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
    return line.strip().encode("utf-8", "replace").decode()


def _of_pipe(talk: Conversation, told: Told) -> None:
    """A question a line; the first that is refused ends it. Raises `ServerRefused`."""
    for line in sys.stdin.buffer:
        question = line.decode("utf-8", "replace").strip()
        if question == "/exit":
            return
        if question == "/clear":
            talk.clear()
        elif question:
            told.answer(question)


def _note(text: str) -> None:
    click.secho(text, dim=True, err=True)
