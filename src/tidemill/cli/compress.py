"""`tidemill compress`: a model made smaller or faster, with what that cost."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tidemill.cli.common import json_option, print_json, print_table, setting_options, settled, size
from tidemill.core.registry import BUILT_IN

if TYPE_CHECKING:
    from tidemill.compress.recipe import Recipe
    from tidemill.compress.report.facts import Report
    from tidemill.compress.run import Done, Finished, Refused


METHODS = ", ".join(name.removeprefix("solver.") for name in BUILT_IN if name.startswith("solver."))


NOTES_SHOWN = 8
KEEPS_ZEROS = {"laplace", "zero-one", "unify"}


class _Compress(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if hint := _of_method(error.option_name, given):
                raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error
            raise


@click.command("compress", cls=_Compress)
@click.argument("model", required=False)
@click.option("-o", "--output", "name", required=True, metavar="NAME", help="Name of the new model in the repository.")
@click.option("--method", metavar="M", help=f"One method: {METHODS}.")
@click.option("--recipe", "recipe_file", type=click.Path(path_type=Path), help="YAML file of several steps.")
@click.option(
    "--data",
    metavar="SOURCE",
    help="Rows to learn from and to measure on: .npz, .csv, .txt, a folder of images, MODULE:FUNCTION, data of the kit",
)
@click.option("--held", metavar="SOURCE", help="Other rows to measure on.  [default: a share of --data is held out]")
@click.option("--metric", metavar="NAME", help="accuracy, agreement, cosine, pearson, neighbours, or MODULE:FUNCTION.")
@click.option(
    "--keep", type=float, metavar="SHARE", help="Refuse (exit 3) what keeps less of the metric, such as 0.99."
)
@click.option(
    "--no-rollback",
    is_flag=True,
    help="Give no layer its own weights back to meet --keep (zero-one and unify never do).",
)
@click.option(
    "--match",
    multiple=True,
    metavar="PATTERN",
    help="With --method: layers to change, by name or op:Conv.  [default: all]",
)
@click.option(
    "-O",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="With --method: one of its options, listed in docs/reference/methods.md.",
)
@click.option("--seed", type=int, help="The same seed gives the same model.  [default: 0]")
@click.option("--rows", type=int, help="Rows to learn from at most.  [default: 1000]")
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder to resume from.  [default: in the user's cache folder]"
)
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Processes that solve layers.  [default: the number of cores]"
)
@click.option(
    "--engine",
    type=click.Choice(("auto", "onnx", "openvino")),
    help="Engine that the result's tidemill.toml shall name; auto: the quicker one.  [default: none]",
)
@click.option("--no-measure", is_flag=True, help="Take no times and no memory: quality and size alone.")
@click.option("--force", is_flag=True, help="Become the next version of a model that is not compressed from this one.")
@setting_options("models")
@json_option
def compress_command(
    model: str | None, name: str, method: str | None, recipe_file: Path | None, match: tuple[str, ...],
    options: tuple[str, ...], work: Path | None, workers: int | None, engine: str | None, no_measure: bool,
    no_rollback: bool, force: bool, as_json: bool, config: Path | None, models: Path | None, **flags: Any,
) -> None:  # fmt: skip
    """Make a model smaller or faster, measure what that cost, and publish it with a report.

    MODEL is a name in the repository or a path of an ONNX model; with --recipe it may stand there. Exits with 3, and
    publishes nothing, when the result keeps less than --keep or misses a target. Interrupted, the same command resumes.
    """
    if (method is None) == (recipe_file is None):
        raise click.UsageError("exactly one of --method and --recipe is needed")
    if recipe_file is not None and (match or options):
        raise click.UsageError("--match and -O go with --method; a recipe's steps have their own")
    from tidemill.assemble.compression import compression
    from tidemill.cli.progress import stages
    from tidemill.core.errors import UnknownModel
    from tidemill.core.places import cache_dir
    from tidemill.kit.catalogue import CATALOGUE

    settings, _ = settled({"models": models}, config)
    recipe = _recipe(
        method, recipe_file, options, match, {"model": model, "rollback": False if no_rollback else None, **flags}
    )
    try:
        job = compression(
            settings, recipe, name, work or cache_dir() / "compress", _command(sys.argv[1:]),
            data=_kit_data, workers=workers, measured=not no_measure, force=force,
            engine=engine or "",
        )  # fmt: skip
    except UnknownModel as unknown:
        if recipe.model in CATALOGUE:
            hint = "the kit has it: `tidemill demo --fetch-only` lays it out"
            raise UnknownModel(f"{unknown.message}; {hint}") from unknown
        raise
    try:
        with stages() as progress:
            done = job(progress)
    except KeyboardInterrupt:
        click.echo("tidemill: interrupted; the same command takes up where this one stopped", err=True)
        raise
    _warn(done)
    if as_json:
        every = (*map(told, done.finished), *map(told_refused, done.refused))
        print_json([msgspec.to_builtins(each, enc_hook=str) for each in every])
    else:
        _print(done.finished, "" if models is None else f" --models {shlex.quote(str(models))}")


def _recipe(
    method: str | None, file: Path | None, options: tuple[str, ...], match: tuple[str, ...], others: dict[str, Any]
) -> Recipe:
    from tidemill.compress import recipe

    if file is not None:
        return recipe.changed(recipe.read(file), **others)
    return recipe.of_method(method or "", options, match, **others)


def _of_method(word: str, given: list[str]) -> str:
    """How to say what was said as a flag, where it is an option of a method. Known methods alone, and only once there
    is an error: reading them takes time."""
    from tidemill.compress import recipe
    from tidemill.core.errors import TidemillError

    name = word.lstrip("-").replace("-", "_")
    methods = METHODS.split(", ")
    for method in sorted(methods, key=lambda each: each not in given):
        try:
            known = recipe.load_method(method).options
        except TidemillError:  # its library is not installed
            continue
        if name in known:
            _, equals, value = next((each for each in given if each.startswith(word)), word).partition("=")
            after = given[given.index(word) + 1 :] if word in given else []
            value = value if equals else next(iter(after), "VALUE")
            return f"It is an option of the method {method}: -O {name}={shlex.quote(value)}"
    return ""


def _command(arguments: list[str]) -> str:
    return shlex.join(["tidemill", *arguments])


def _kit_data(name: str) -> Path | None:
    """The kit's data of this name, fetched when it is not there yet; None when the kit has none."""
    from tidemill.cli.progress import bars
    from tidemill.kit.datasets import DATASETS, data

    if name not in DATASETS:
        return None
    with bars() as progress:
        return data(name, progress)


def told(each: Finished) -> dict[str, Any]:
    """What --json says of a published model."""
    report = each.folder / "report" / "report.html"
    return {"name": each.name, "version": each.version, "path": each.folder, "report": report, **_figures(each.report)}


def told_refused(each: Refused) -> dict[str, Any]:
    """What --json says of a model that was not published beside others that were."""
    return {"refused": each.why, "report": each.folder / "report.html", **_figures(each.report)}


def _figures(report: Report) -> dict[str, Any]:
    return {
        "outcome": report.outcome,
        "size_bytes": report.after.size_bytes,
        "size_ratio": report.size_ratio,
        "metric": report.metric.name,
        "before": report.metric.before,
        "after": report.metric.after,
        "difference": report.metric.difference,
        "kept": report.metric.kept,
        "speeds": report.speeds,
        "footprints": report.footprints,
        "spent_s": report.spent_s,
        "rss_bytes_max": report.rss_bytes_max,
        "notes": report.notes,
    }


def _warn(done: Done) -> None:
    """On stderr: what a reader of the table would miss."""
    for each in done.refused:
        click.echo(f"refused: {each.outcome}: {each.why} (report: {each.folder / 'report.html'})", err=True)
    for finished in done.finished:
        notes = finished.report.notes
        for note in notes[:NOTES_SHOWN]:
            click.echo(f"{finished.name}: {note}", err=True)
        if len(notes) > NOTES_SHOWN:
            click.echo(f"{finished.name}: {len(notes) - NOTES_SHOWN} more notes are in the report", err=True)
    if any(_has_zeros(each.report) for each in done.finished):
        click.echo(
            "zeros are kept as zeros, and the file is no smaller: -O units=ffn, heads or channels of laplace"
            " (-O unit=… of zero-one) takes units out of the tensors",
            err=True,
        )


def _has_zeros(report: Report) -> bool:
    """Whether weights were pruned that the file holds all the same."""
    pruned = any(layer.density < 0.9 for layer in report.layers)
    return pruned and bool(KEEPS_ZEROS & set(report.methods)) and report.size_ratio > 0.95


def _print(finished: list[Finished], where: str) -> None:
    rows = []
    for each in finished:
        report = each.report
        speed = report.best_speed
        metric = report.metric
        interval = f"({metric.after.low:.4f} to {metric.after.high:.4f})"
        rows.append(
            (
                each.name,
                each.version,
                f"{size(report.before.size_bytes)} → {size(report.after.size_bytes)}",
                f"{report.size_ratio:.1%}",
                f"{1 / speed.ratio.mean:.2f}× ({speed.shape}, {speed.engine})" if speed else "",
                f"{metric.name} {metric.before.mean:.4f} → {metric.after.mean:.4f} {interval}",
            )
        )
    print_table(("model", "version", "size", "share", "as fast", "quality"), rows, right=("version", "share"))
    for each in finished:
        click.echo(f"report: {each.folder / 'report' / 'report.html'}")
    click.echo(f"serve it: tidemill serve {finished[0].name}{where}")
