"""`tidemill bench`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli import bench_words
from tidemill.cli.common import json_option, setting_options, settled

if TYPE_CHECKING:
    from tidemill.client.bench.measure import Side
    from tidemill.client.bench.payload import Payload
    from tidemill.client.bench.plan import Plan
    from tidemill.client.bench.target import Target
    from tidemill.core.tensor import Signature, Tensors

OWN = ("models", "engine", "threads", "instances", "max_batch", "queue_max", "inline_us_max", "no_charge")
"""Settings of the service that bench starts itself."""
INTERRUPTED = 130
DISTINCT = 16


def _options(function: Any) -> Any:
    """Those of the command, in the order of its help."""
    several = [
        click.option("--url", envvar="TIDEMILL_URL",
                     help="Measure a running server: http://HOST:PORT, HOST:PORT for gRPC."),
        click.option("--key", envvar="TIDEMILL_KEY", help="Key for --url; better given as TIDEMILL_KEY."),
        click.option("--door",
                     help="v2 (binary tensors), v2-json, tfs, v2-grpc, tfs-grpc, or openai for language models."
                     "  [default: openai for a model that speaks, else v2]"),
        click.option("--against", metavar="URL", help="Another server to measure beside it, round by round."),
        click.option("--against-door", help="Its door.  [default: as --door]"),
        click.option("--against-model", help="The model's name there.  [default: the same]"),
        click.option("--against-key", envvar="TIDEMILL_AGAINST_KEY", help="Key for --against."),
        click.option("--in-flight-max", type=click.IntRange(0, 4096), default=None,
                     help="Closed loop with 1, 2, 4, ... up to so many in flight; 0 for none."
                     "  [default: 32; 0 with --rate]"),
        click.option("--rate", "rates", type=click.FloatRange(min=0, min_open=True), multiple=True,
                     help="Open loop: so many arrivals a second, Poisson; may be repeated."),
        click.option("--connections", type=click.IntRange(1, 4096), default=128, show_default=True,
                     help="In flight at most in an open loop."),
        click.option("--seconds", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True,
                     help="Of one load in one round, at most."),
        click.option("--requests", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True,
                     help="Of one load in one round, at most."),
        click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True,
                     help="Every load is driven so often; medians are told."),
        click.option("--warm-seconds", type=click.FloatRange(0, 600), default=1.0, show_default=True,
                     help="Load before the first round, not counted."),
        click.option("--timeout-seconds", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True,
                     help="An answer that takes longer is given up."),
        click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="Inputs of the request: .npz, .npy or .json."),
        click.option("--zeros", is_flag=True, help="Inputs of zeros instead of random ones."),
        click.option("--rows", type=click.IntRange(1, 65536), default=1, show_default=True,
                     help="Rows of a request that is made."),
        click.option("--shape", "shapes", multiple=True, metavar="INPUT=1,128",
                     help="Shape of an input that is made; free sides are 1 otherwise. May be repeated."),
        click.option("--distinct", type=click.IntRange(1, 4096),
                     help="Different random requests, sent in turn.  [default: 16; 512 prompts]"),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of inputs and arrivals."),
        click.option("--slo-ms", type=click.FloatRange(min=0, min_open=True),
                     help="Tell how many answers a second came within so many milliseconds."),
        click.option("--core-hour", type=click.FloatRange(min=0),
                     help="What one core costs an hour: tells the CPU cost of 1,000 requests."),
        click.option("--plot", type=click.Path(dir_okay=False, writable=True, path_type=Path),
                     help="Draw latency against load into this PNG."),
    ]  # fmt: skip
    for option in reversed([*several, *bench_words.OPTIONS]):
        function = option(function)
    return function


@click.command("bench")
@click.argument("model")
@_options
@setting_options(*OWN)
@json_option
def bench_command(model: str, config: Path | None, **flags: Any) -> int | None:
    """Measure a model under load: latency, throughput, CPU and money.

    MODEL is served for the purpose as `tidemill serve MODEL` would, on free ports, without keys; with --url it is the
    name (NAME or NAME@VERSION) of a model that a running server has. Ctrl-C tells what is there so far.
    """
    from tidemill.core.errors import InvalidSetting

    for name in ("url", "against"):
        if flags[name] == "":
            raise InvalidSetting(f"--{name} is empty: give a URL, or leave it out")
    with contextlib.ExitStack() as stack:
        return _benched(model, config, flags, stack)


def _benched(model: str, config: Path | None, flags: dict[str, Any], stack: contextlib.ExitStack) -> int | None:
    from tidemill.cli import bench_told
    from tidemill.client.bench import picture, picture_words
    from tidemill.client.bench.measure import first_answer
    from tidemill.client.bench.meter import Till
    from tidemill.client.bench.payload import speaks_grpc
    from tidemill.client.bench.target import target

    plan = _plan(flags)
    for door in (flags["door"], flags["against_door"]):
        if door:
            speaks_grpc(door)
    if flags["door"]:
        bench_words.check(flags, [flags["door"], flags["against_door"] or flags["door"]])
    if flags["plot"]:
        picture.check_png()
    mine = stack.enter_context(_mine(model, config, flags))
    doors = [mine.door, flags["against_door"] or mine.door]
    speaks = bench_words.check(flags, doors)
    wheres = [mine]
    if flags["against"]:
        there = flags["against_model"] or (mine.model + (f"@{mine.version}" if mine.version else ""))
        other = target("other", doors[1], flags["against"], there, flags["against_key"])
        wheres.append(_found(other))
    sides = bench_words.sides(wheres, flags) if speaks else _of_tensors(wheres, flags)
    import uvloop

    for side in sides:
        uvloop.run(first_answer(side, plan.answer_s_max))
    tills = {side.label: Till(side.where) for side in sides}
    interrupted = _driven(sides, plan, flags["slo_ms"])
    told = bench_told.Told(
        sides, plan, {label: till.units_per_1000() for label, till in tills.items()}, flags["core_hour"],
        flags["slo_ms"], interrupted,
    )  # fmt: skip
    (bench_told.as_json if flags["as_json"] else bench_told.as_tables)(told)
    if flags["plot"] and told.summaries:
        draw = picture_words.png if speaks else picture.png
        draw(told.summaries, f"{mine.model} through {mine.door}", flags["plot"])
        click.echo(f"drawn into {flags['plot']}", err=True)
    return INTERRUPTED if interrupted else None


def _of_tensors(wheres: list[Target], flags: dict[str, Any]) -> list[Side]:
    """The first of `wheres` says what the inputs are."""
    from tidemill.client.bench.measure import Side
    from tidemill.client.bench.meter import Meter
    from tidemill.client.bench.target import signature_of

    signature = signature_of(wheres[0])
    several = _inputs(wheres[0].model, signature, flags)
    sides = []
    for where in wheres:
        theirs = signature if where is wheres[0] else signature_of(where)
        sides.append(Side(where, _payloads(where, theirs, signature, several), Meter(where)))
    return sides


def _plan(flags: dict[str, Any]) -> Plan:
    from tidemill.client.bench.plan import Plan, levels

    most = flags["in_flight_max"]
    if most is None:
        most = 0 if flags["rates"] else 32
    return Plan(
        levels(most, flags["rates"]), flags["rounds"], flags["seconds"], flags["requests"], flags["warm_seconds"],
        flags["connections"], flags["timeout_seconds"], flags["seed"],
    )  # fmt: skip


@contextlib.contextmanager
def _mine(model: str, config: Path | None, flags: dict[str, Any]) -> Iterator[Target]:
    """The server that is asked for: the one that runs, or one of our own."""
    from tidemill.cli.own_service import own_service
    from tidemill.client.bench.payload import speaks_grpc
    from tidemill.client.bench.target import door_of, target
    from tidemill.core.errors import InvalidSetting, RefusedModel

    given = [name for name in OWN if flags[name] is not None]
    if flags["url"]:
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise InvalidSetting(f"{flag} is for a service that bench starts; the one at --url has its own settings")
        door = flags["door"] or door_of(flags["url"], model, flags["key"])
        yield _found(target("this", door, flags["url"], model, flags["key"]))
        return
    from tidemill.assemble import choose

    settings, _ = settled({name: flags[name] for name in OWN}, config)
    choice = choose(settings, [model])[-1]
    if choice.package is None:
        raise RefusedModel(choice.reason)
    words = [] if config is None else ["--config", str(config)]
    for name in given:
        flag, value = "--" + name.replace("_", "-"), flags[name]
        words += [flag] if value is True else [flag, str(value)]
    click.echo(f"starting a service for {choice.name} version {choice.version}", err=True)
    with own_service(model, words, "bench") as service:
        door = flags["door"] or door_of(service.http_url, choice.name, None)
        url = service.grpc_address if speaks_grpc(door) else service.http_url
        made = target("this", door, url, choice.name, None, service.http_url)
        yield made.owned((service.pid,))


def _found(where: Target) -> Target:
    """With the processes of this machine that listen there."""
    from tidemill.client.cpu import listeners

    return where.owned(listeners(where.host, where.port))


def _inputs(model: str, signature: Signature, flags: dict[str, Any]) -> list[Tensors]:
    """The tensors of each request that is sent: the file's, the kit's own sample, or made ones."""
    from tidemill.client.bench import inputs
    from tidemill.core.errors import InvalidSetting, TidemillError
    from tidemill.kit.install import sample

    if flags["data"]:
        read = inputs.read(flags["data"], signature)
        signature.check(read)
        return [read]
    shapes = {}
    for word in flags["shapes"]:
        name, _, sides = word.rpartition("=")
        try:
            shapes[name] = [int(side) for side in sides.split(",") if side]
        except ValueError as error:
            raise InvalidSetting(f"--shape {word!r}: expected INPUT=SIZE,SIZE,...") from error
    if not shapes and not flags["zeros"] and flags["rows"] == 1:
        try:
            known = sample(model)
            signature.check(known)
            return [known]
        except TidemillError:
            pass  # no model of the kit, or another of its name
    count = 1 if flags["zeros"] else flags["distinct"] or DISTINCT
    made: list[Tensors] = [
        inputs.made(
            signature, rows=flags["rows"], shapes=shapes, seed=None if flags["zeros"] else flags["seed"] + place
        )
        for place in range(count)
    ]
    for each in made[:1]:
        signature.check(each)
    return made


def _payloads(where: Target, theirs: Signature, ours: Signature, several: Sequence[Tensors]) -> list[Payload]:
    """The requests in the dialect of `where`. A model with one input may have another name for it there."""
    from tidemill.client.bench.payload import payload

    if theirs is not ours and len(theirs.inputs) == len(ours.inputs) == 1:
        name, there = ours.inputs[0].name, theirs.inputs[0].name
        several = [{there: each[name]} for each in several]
    for each in several[:1]:
        theirs.check(each)
    return [payload(where.door, where.model, where.version, theirs, each) for each in several]


def _driven(sides: Any, plan: Plan, slo_ms: float | None) -> bool:
    """Whether Ctrl-C ended it."""
    import uvloop

    from tidemill.cli.progress import stages
    from tidemill.client.bench import measure

    seconds = plan.seconds_in_all(len(sides))
    click.echo(f"{len(plan.levels)} loads, {plan.rounds} rounds: about {seconds:.0f} s", err=True)
    with stages() as stage:

        def report(label: str, done: int, total: int) -> None:
            left = seconds * (total - done) / total if total else None
            stage(label, done, total, left)

        try:
            uvloop.run(measure.run(sides, plan, slo_ms, report))
        except KeyboardInterrupt:
            return True
    return False
