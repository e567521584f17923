"""Writes `docs/reference` from the code, so that it cannot say anything else; `--check` exits with 1 when it is stale.

python docs/build.py            write
python docs/build.py --check    compare, and name what differs
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import click
import msgspec

from tidemill.cli.main import tidemill
from tidemill.compress.method import Method
from tidemill.core import registry, settings
from tidemill.core.errors import CallerError, TidemillError, leaves
from tidemill.core.generation import Busy
from tidemill.doors.problems import PROBLEMS
from tidemill.observe.metrics import NAMES, Exposition, FrontSample, ModelSample, ServiceSample, UpstreamSample
from tidemill.observe.stats import ModelStats
from tidemill.steps.step import Step

FOLDER = Path(__file__).parent / "reference"
WIDTH = 100
NOTE = "<!-- Written by docs/build.py; do not edit. -->\n"

MEANINGS = {
    "request.invalid": "The request is wrong in a way that has no code of its own.",
    "request.malformed": "The bytes are not what the dialect expects: no JSON, no protobuf, a missing field, a bad header.",
    "request.too_large": "The body is larger than `body_bytes_max`.",
    "request.headers_too_large": "The headers are larger than `header_bytes_max`.",
    "request.too_slow": "The headers or the body did not arrive in time (`header_timeout_ms`, `body_idle_ms`, `body_timeout_ms`).",
    "request.encoding": "The body is compressed; send it plain.",
    "request.route": "There is nothing at this address.",
    "request.method": "The address exists, and takes another method.",
    "request.not_offered": "A part of a dialect that this service does not offer, such as shared memory; nothing was done.",
    "request.cancelled": "The caller went away before the answer. Nobody reads this code; it is counted in the metrics.",
    "request.deadline": "The deadline passed before the answer. Nothing is charged.",
    "key.missing": "This service wants a key, and none came.",
    "key.invalid": "The key is not known here.",
    "key.revoked": "The key was revoked.",
    "key.forbidden": "The key has no right to the admin API, or a foreign web page asks.",
    "key.unknown": "There is no key with this id (admin API).",
    "model.unknown": "No model of this name is served.",
    "model.version_unknown": "The model has no such version, or it is not a whole number, or a label was asked for.",
    "model.signature_unknown": "A signature other than `serving_default` was asked for.",
    "model.not_ready": "The version is being loaded or unloaded, or was refused; the message says which and why.",
    "input.missing": "The model takes an input that the request does not hold.",
    "input.unknown": "The request holds an input that the model does not take.",
    "input.datatype": "An input has another datatype than the model's.",
    "input.shape": "An input has a shape that the model does not take, or its list is ragged.",
    "input.value": "A value does not fit its datatype: too large, NaN for an integer, undecodable base64.",
    "input.too_long": "Prompt and answer would be longer than the language model's context; shorten one of them.",
    "output.unknown": "An output was asked for that the model does not give.",
    "engine.failed": "The engine broke on this request. The log tells more.",
    "admission.overloaded": "A queue is full. `Retry-After` says when to come back.",
    "admission.draining": "The service is going down. Ask another.",
    "ledger.unavailable": "The charge could not be written, so the answer was withheld and nothing is billed.",
    "setting.invalid": "A setting, a tenant or a label is not acceptable; the message names it.",
    "kit.fetch_failed": "A model of the kit could not be fetched (command line).",
    "internal": "This service failed in a way that was not foreseen. The log tells more under the request id.",
}
"""What a code means, where its class does not say it."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cli() -> str:
    parts = [
        "# The command line\n",
        "Every verb with its `--help`. Exit codes: 0 done, 1 failed, 2 misuse, 3 finished but a check refused, 130"
        " interrupted.\n",
    ]
    for path, text in helps(tidemill, None, "tidemill"):
        parts.append(f"## {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def helps(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
    """(command path, help text) of `command` and all below it."""
    context = click.Context(
        command, parent=parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None
            yield from helps(below, context, verb)


def settings_page() -> str:
    rows = []
    for entry in settings.table():
        kind = settings.TYPES[entry.name]
        low, high, words = (entry.metadata[key] for key in ("at_least", "at_most", "one_of"))
        bounds = f"{low} to {high}" if low is not None else ", ".join(words)
        default = str(entry.default).lower() if kind is bool else str(entry.default)
        if kind is Path:
            default = "the user's data folder" + (", `models` in it" if entry.name == "models" else "")
        else:
            default = f"`{default}`"
        kind_name = {bool: "flag", int: "whole number", float: "number", str: "text", Path: "folder"}[kind]
        variable = settings.ENVIRONMENT_PREFIX + entry.name.upper()
        rows.append((f"`{entry.name}`", f"`{variable}`", kind_name, default, bounds or "", entry.metadata["about"]))
    others = ", ".join(f"`{settings.ENVIRONMENT_PREFIX}{word.upper()}`" for word in sorted(settings.OTHER_WORDS))
    return (
        "# Settings\n\n"
        "One word names a setting everywhere: the flag `--http-port`, the variable `TIDEMILL_HTTP_PORT`, the key\n"
        "`http_port` in `tidemill.toml`. A flag beats the environment, the environment beats the file, the file beats the\n"
        "default. An unknown key or variable is an error. `tidemill settings` shows each value with its origin.\n\n"
        + table(("setting", "variable", "kind", "default", "bounds", "meaning"), rows)
        + f"\nVariables of the command line that are no settings of the service: {others}.\n"
    )


def errors() -> str:
    classes: dict[str, type[TidemillError]] = {}
    for each in leaves():
        if each.__module__ == TidemillError.__module__:
            classes[each.code] = each if each is not TidemillError else classes.get(each.code, each)
    rows = []
    for code, (status, grpc_status) in PROBLEMS.items():
        said = MEANINGS.get(code) or " ".join((classes[code].__doc__ or "").split())
        if not said:
            raise SystemExit(
                f"docs/build.py: {code} has no meaning; write its class a docstring, or a line into MEANINGS"
            )
        whose = "caller" if issubclass(classes[code], CallerError) else "service"
        rows.append((f"`{code}`", str(status), f"`{grpc_status.name}`", whose, said))
    return (
        "# Errors\n\n"
        'Over REST an error is `{"error": MESSAGE, "code": CODE}` with the status below. Over gRPC it is the status below with\n'
        "the message as its details and the code in the trailing metadata `tidemill-code`. Messages may change from one\n"
        "version to the next, codes do not. An error of the *caller* fails again when it is sent again as it is; one of the\n"
        "*service* may be tried again. What is refused, or fails in the engine, is not charged.\n\n"
        + table(("code", "HTTP", "gRPC", "whose", "meaning"), rows)
    )


def metrics() -> str:
    front = FrontSample("http-1", True, 0, 0, 0.0, 0)
    stats = ModelStats()
    words = stats.words_of("chat", "")
    words.ended("", 1.0)
    words.completion.observe(1)
    model = ModelSample("m", 1, True, 0, stats, busy=Busy())
    upstream = UpstreamSample("m", 1, "1", 0, 0, True)
    families = {
        family.name: family
        for family in Exposition(
            lambda: ServiceSample(
                [model], {"internal": 1}, 0, 0, 0, 0, (0.0, False), fronts=[front], upstreams=[upstream]
            )
        ).collect()
    }
    rows = []
    for name, about in NAMES.items():
        family = families[name]
        shown = f"{name}_total" if family.type == "counter" else name
        labels = [label for label in family.samples[0].labels if label != "le"]
        rows.append((f"`{shown}`", family.type, ", ".join(f"`{label}`" for label in labels), about))
    return (
        "# Metrics\n\n"
        "`GET /metrics` answers in Prometheus' text form and wants no key. Times are in seconds, sizes in bytes. A histogram\n"
        "has the usual `_bucket`, `_sum` and `_count`.\n\n" + table(("metric", "type", "labels", "meaning"), rows)
    )


def built_in(kind: str) -> list[str]:
    """What is documented: others may be installed beside it."""
    return [name for name in registry.names(kind) if f"{kind}.{name}" in registry.BUILT_IN]


def methods() -> str:
    parts = [
        "# Methods of compression\n",
        "`tidemill compress MODEL --method METHOD -O OPTION=VALUE`, or a step of a recipe; [Compression](../compression.md) says"
        " which is for what.\n",
    ]
    for name in built_in("solver"):
        method: Method = registry.load(f"solver.{name}")
        rows = []
        for word, option in method.options.items():
            bounds = ", ".join(f"`{each}`" for each in option.choices)
            if not bounds and (option.low is not None or option.high is not None):
                low, high = ("" if each is None else f"{each:g}" for each in (option.low, option.high))
                bounds = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}"
            kind = {bool: "true or false", int: "whole number", float: "number", str: "word"}[option.type]
            default = str(option.default).lower() if option.type is bool else str(option.default)
            rows.append((f"`{word}`", kind, f"`{default}`" if default else "", bounds, option.help))
        listed = table(("option", "kind", "default", "bounds", "meaning"), rows) if rows else "It has no options.\n"
        parts.append(f"## {name}\n\n{method.summary}\n\n{listed}")
    return "\n".join(parts)


def steps() -> str:
    parts = [
        "# Steps\n",
        "What may stand in `[[pre]]`, `[[post]]`, `before` and `after` of a model's `tidemill.toml`; [Raw data](../raw-data.md) says"
        " how they work together. An option without a default must be given.\n",
    ]
    for name in built_in("step"):
        kind: type[Step] = registry.load(f"step.{name}")
        summary = "\n".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())
        reads = f"\nReads {', '.join(f'`{media}`' for media in kind.accepts)}.\n" if kind.accepts else ""
        fields = msgspec.inspect.type_info(kind)
        assert isinstance(fields, msgspec.inspect.StructType)
        rows = [option(field) for field in fields.fields]
        parts.append(
            f"## {name}\n\n{summary}\n{reads}\n" + table(("option", "kind", "default", "bounds", "meaning"), rows)
        )
    return "\n".join(parts)


def option(field: msgspec.inspect.Field) -> tuple[str, str, str, str, str]:
    """One option of a step as a row: name, kind, default, bounds, meaning."""
    kind, said = field.type, ""
    while isinstance(kind, msgspec.inspect.Metadata | msgspec.inspect.UnionType):
        if isinstance(kind, msgspec.inspect.Metadata):
            said = said or (kind.extra_json_schema or {}).get("description", "")
            kind = kind.type
        else:
            kind = next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType))
    bounds = ""
    if isinstance(kind, msgspec.inspect.LiteralType):
        bounds = ", ".join(f"`{each}`" for each in kind.values)
    elif isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        low = kind.ge if kind.ge is not None else kind.gt
        high = kind.le
        both = f"{low:g} to {high:.12g}" if low is not None and high is not None else ""
        bounds = both or (
            f"at least {low:g}" if low is not None else f"at most {high:.12g}" if high is not None else ""
        )
    words = {
        "IntType": "whole number", "FloatType": "number", "StrType": "text", "BoolType": "true or false",
        "LiteralType": "word", "VarTupleType": "list",
    }  # fmt: skip
    default = "" if field.default in (msgspec.NODEFAULT, None) else f"`{shown(field.default)}`"
    return f"`{field.encode_name}`", words[type(kind).__name__], default, bounds, said


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "settings.md": settings_page,
    "errors.md": errors,
    "metrics.md": metrics,
    "methods.md": methods,
    "steps.md": steps,
}


def main(arguments: Sequence[str]) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, NOTE + page()
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    for name in stale:
        print(f"docs/reference/{name} {'is stale: run `make docs`' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
