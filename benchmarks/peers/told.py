"""What the comparison comes to: fronts, hypervolumes, where peers are ahead; as text, as Markdown and as a picture.

Time counts on the engines that a side has: ours are served in float32, and peers may have OpenVINO's bfloat16 too. What
ours would come to with that is told beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import fronts
from peers.cases import BOTH, CNN, MINILM
from peers.fronts import Point
from peers.subject import BF16, ENGINES, TITLES
from tidemill.core.tensor import Array

Record = dict[str, Any]
PerRow = Callable[[Record], Mapping[str, Array]]

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
PICTURE = Path("images") / "compression-peers.svg"
WORST = {MINILM: 0.1, CNN: 5.0}
UNIT = {MINILM: "1 − cosine", CNN: "points of accuracy lost"}
TITLE = {MINILM: "MiniLM", CNN: "The CNN"}
SIZE = "size"
FLOAT32 = "float32"
OUR_ENGINES = tuple(each for each in ENGINES if each != BF16)


@dataclass
class Front:
    """One model by one cost: points, hypervolumes and their difference for each seed."""

    model: str
    cost: str
    ours: dict[int, list[Point]] = field(default_factory=dict)
    theirs: dict[int, list[Point]] = field(default_factory=dict)
    with_bf16: dict[int, list[Point]] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        return WORST[self.model]

    def volumes(self, seed: int) -> tuple[float, float]:
        return fronts.volume_of(self.ours[seed], self.worst), fronts.volume_of(self.theirs[seed], self.worst)

    def difference(self, seed: int) -> tuple[float, float, float]:
        return fronts.difference(self.ours[seed], self.theirs[seed], self.worst)

    def over_seeds(self, ours: Mapping[int, Sequence[Point]]) -> tuple[float, float, float]:
        return fronts.over_seeds(
            [
                fronts.volume_of(ours[seed], self.worst) - fronts.volume_of(self.theirs[seed], self.worst)
                for seed in sorted(ours)
            ]
        )


@dataclass
class Summary:
    records: list[Record]
    fronts: list[Front]


def summarised(records: Sequence[Record], per_row: PerRow) -> Summary:
    """Of seeds for which everything was tried that was with the first; a part would compare unlike sets."""
    found = []
    for model in BOTH:
        of_model = [each for each in records if each["model"] == model and "failed" not in each]
        shapes = next((list(each["times"]) for each in of_model if each["name"] == FLOAT32), [])
        seeds = _whole_seeds([each for each in records if each["model"] == model])
        for cost in (SIZE, *shapes) if seeds else ():
            one = Front(model, cost)
            for seed in seeds:
                of_seed = [each for each in of_model if each["seed"] == seed]
                drawn = {id(each): {e: fronts.draws(rows) for e, rows in per_row(each).items()} for each in of_seed}
                mine = [each for each in of_seed if each["side"] == "ours" or each["name"] == FLOAT32]
                others = [each for each in of_seed if each["side"] == "peer"]
                if cost != SIZE and any(each.get("finals") for each in of_seed):
                    # Times taken at other times are not held against those taken together.
                    mine = [each for each in mine if each.get("finals")]
                    others = [each for each in others if each.get("finals")]
                one.ours[seed] = _points(mine, cost, OUR_ENGINES, drawn)
                one.with_bf16[seed] = _points(mine, cost, ENGINES, drawn)
                one.theirs[seed] = _points(others, cost, ENGINES, drawn)
            found.append(one)
    return Summary(list(records), found)


def _whole_seeds(records: Sequence[Record]) -> list[int]:
    tried: dict[int, set[tuple[str, str]]] = {}
    for each in records:
        tried.setdefault(each["seed"], set()).add((each["side"], each["name"]))
    if not tried:
        return []
    wanted = tried[min(tried)]
    sides = {side for side, name in wanted if name != FLOAT32}
    return [seed for seed in sorted(tried) if tried[seed] >= wanted] if sides == {"ours", "peer"} else []


def finalists(records: Sequence[Record], shapes: Sequence[str], most: int) -> set[tuple[str, str]]:
    """(side, name) of the files of one model and seed that may be on their side's front of time; `most` a front."""
    found = set()
    for side, engines in (("ours", OUR_ENGINES), ("peer", ENGINES)):
        of_side = [each for each in records if each["side"] == side and "failed" not in each]
        for shape in shapes:
            points = _points([each | {"finals": None} for each in of_side], shape, engines, {})
            names = {each.name.rpartition(" on ")[0] for each in fronts.candidates(points, most)}
            found |= {(side, name) for name in names}
    return found


def _points(
    records: Iterable[Record], cost: str, engines: Sequence[str], drawn: Mapping[int, Mapping[str, Array]]
) -> list[Point]:
    found = []
    for each in records:
        drawn_here = drawn.get(id(each), {})
        able = [engine for engine in engines if "lost" in each["lost"].get(engine, {})]
        for engine in able[:1] if cost == SIZE else able:
            loss, sampled = max(each["lost"][engine]["lost"], 0.0), drawn_here.get(engine)
            time = (each.get("finals") or each["times"]).get(cost, {}).get(engine, {})
            if cost == SIZE:
                found.append(Point(each["name"], loss, each["size"], (each["size"], each["size"]), sampled))
            elif "ratio" in time:
                name = f"{each['name']} on {TITLES[engine]}"
                found.append(Point(name, loss, time["ratio"], (time["low"], time["high"]), sampled))
    return found


# -- words -------------------------------------------------------------------------------------------------------------


def line(record: Record) -> str:
    """One file in a line of a terminal."""
    if "failed" in record:
        return f"failed: {record['failed']}"
    losses = " ".join(f"{TITLES[e]} {_number(facts['lost'])}" for e, facts in record["lost"].items() if "lost" in facts)
    times = "; ".join(
        f"{shape}: " + " ".join(f"{TITLES[e]} {facts['ratio']:.2f}" for e, facts in each.items() if "ratio" in facts)
        for shape, each in record["times"].items()
    )
    return f"size {record['size']:.3f} | lost {losses} | time {times}"


def markdown(summary: Summary, *, unfinished: bool = False) -> str:
    """`unfinished` tells also of a model for which there is no front yet."""
    parts = []
    for model in BOTH:
        of_model = [each for each in summary.records if each["model"] == model]
        own = [each for each in summary.fronts if each.model == model]
        if not of_model or not (own or unfinished):
            continue
        parts += [f"### {TITLE[model]} beside other tools\n", _table(model, of_model), _failed(of_model)]
        if own:
            parts += [_volumes(model, own), _ahead(own)]
    host = next((each["machine"] for each in summary.records if "machine" in each), None)
    if host and parts:
        when = max(each["when"] for each in summary.records)[:10]
        parts.append(f"Measured {when} on {host['cores']} cores of {host['cpu']}, shared with others.\n")
    return "\n".join(part for part in parts if part)


def _table(model: str, records: Sequence[Record]) -> str:
    shapes = list(next((each["times"] for each in records if each["name"] == FLOAT32 and "times" in each), {}))
    lines = [
        f"| | size | {UNIT[model]} | " + " | ".join(f"time, {shape}" for shape in shapes) + " | seeds |",
        "| --- " * (4 + len(shapes)) + "|",
    ]
    groups: dict[tuple[str, str], list[Record]] = {}
    for each in records:
        if "failed" not in each:
            groups.setdefault((each["side"], each["name"]), []).append(each)
    for (side, name), group in sorted(groups.items(), key=lambda item: statistics.mean(r["size"] for r in item[1])):
        engines = OUR_ENGINES if side == "ours" else ENGINES
        losses = [loss for each in group if (loss := _loss(each, engines)) is not None]
        size = f"{statistics.mean(each['size'] for each in group):.3f}"
        cells = [_best_time(group, shape, engines) for shape in shapes]
        titled = f"**{name}**" if side == "ours" else name
        lost = _number(statistics.mean(losses)) if losses else "–"
        seeds = ", ".join(str(each["seed"]) for each in sorted(group, key=lambda r: int(r["seed"])))
        lines.append(f"| {titled} | {size} | {lost} | " + " | ".join(cells) + f" | {seeds} |")
    return "\n".join(lines) + "\n"


def _at(point: Point) -> str:
    return f"{point.name}, {_number(point.loss)} at {point.cost:.3f}"


def _number(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # without "-0.0000"


def _loss(record: Record, engines: Sequence[str]) -> float | None:
    return next((float(record["lost"][e]["lost"]) for e in engines if "lost" in record["lost"].get(e, {})), None)


def _best_time(group: Sequence[Record], shape: str, engines: Sequence[str]) -> str:
    taken = {
        engine: [times[shape][engine]["ratio"] for each in group
                 if "ratio" in (times := each.get("finals") or each["times"]).get(shape, {}).get(engine, {})]
        for engine in engines
    }  # fmt: skip
    medians = {engine: statistics.median(ratios) for engine, ratios in taken.items() if ratios}
    if not medians:
        return "–"
    best = min(medians, key=lambda engine: medians[engine])
    return f"{medians[best]:.2f} {TITLES[best]}"


def _failed(records: Sequence[Record]) -> str:
    said: dict[str, list[int]] = {}
    for each in records:
        if "failed" in each:
            why = " ".join(each["failed"].replace("`", "'").split())
            said.setdefault(f"{each['name']}: `{why}`", []).append(each["seed"])
    if not said:
        return ""
    return "Did not come to a result:\n\n" + "\n".join(f"- {words}" for words in sorted(said)) + "\n"


def _volumes(model: str, own: Sequence[Front]) -> str:
    lines = [
        f"Hypervolume, of the box up to the reference point ({WORST[model]:g} {UNIT[model]}, float32's size or time)."
        " The interval of a seed is over draws of the held-out rows, that of the mean Student's over seeds.\n",
        "| loss against | seed | ours | peers | ours − peers | … if ours ran in bfloat16 too |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in own:
        what = each.cost if each.cost == SIZE else f"time, {each.cost}"
        for seed in sorted(each.ours):
            mine, other = each.volumes(seed)
            also = fronts.volume_of(each.with_bf16[seed], each.worst) - other
            lines.append(
                f"| {what} | {seed} | {mine:.4f} | {other:.4f} | {_interval(each.difference(seed))} | {also:+.4f} |"
            )
        if len(each.ours) > 1:
            mean, also3 = _interval(each.over_seeds(each.ours)), _interval(each.over_seeds(each.with_bf16))
            lines.append(f"| {what} | mean of {len(each.ours)} | | | **{mean}** | {also3} |")
    return "\n".join(lines) + "\n"


def _interval(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.4f}" if math.isnan(low) else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _ahead(own: Sequence[Front]) -> str:
    lines = []
    for each in own:
        said: dict[str, list[str]] = {}
        for seed in sorted(each.ours):
            for point, rival, alike in fronts.ahead(each.theirs[seed], each.ours[seed]):
                at = f"{_number(point.loss)} at {point.cost:.3f}"
                best = "nothing of ours at no more" if rival is None else f"ours at no more {_at(rival)}"
                doubt = "" if alike is None else f"; not told apart from ours {_at(alike)}"
                said.setdefault(point.name, []).append(f"seed {seed}: {at}, {best}{doubt}")
        what = each.cost if each.cost == SIZE else f"time, {each.cost}"
        if said:
            lines += [f"- {what}: **{name}** ({' / '.join(words)})" for name, words in said.items()]
        else:
            lines.append(f"- {what}: nowhere")
    return "Where a peer is ahead (none of ours is as good in both):\n\n" + "\n".join(lines) + "\n"


# -- the document and the picture --------------------------------------------------------------------------------------


def write(summary: Summary, document: Path) -> None:
    """Into the marked place. Raises `ValueError` where there is none."""
    whole = document.read_text("utf-8")
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no place between {BEGIN} and {END}")
    picture = ""
    if summary.fronts:
        draw(summary, document.parent / PICTURE)
        picture = f"![Loss against size and against time, ours and other tools]({PICTURE.as_posix()})\n\n"
    document.write_text(f"{head}{BEGIN}\n\n{picture}{markdown(summary)}\n{END}{tail}", "utf-8")


def draw(summary: Summary, path: Path) -> None:
    """Points of all seeds, and the front of the lowest one."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    models = [model for model in BOTH if any(each.model == model for each in summary.fronts)]
    across = max(sum(each.model == model for each in summary.fronts) for model in models)
    style = {"svg.hashsalt": "tidemill", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2 * across, 3.6 * len(models)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(len(models), across, squeeze=False)
        for row, model in enumerate(models):
            own = [each for each in summary.fronts if each.model == model]
            for column in range(across):
                if column < len(own):
                    _plot(axes[row][column], own[column])
                else:
                    axes[row][column].axis("off")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _plot(axes: Any, own: Front) -> None:
    for title, sides, colour, marker in (("peers", own.theirs, "#9a6700", "s"), ("ours", own.ours, "#0969da", "o")):
        points = [point for seed in sides for point in sides[seed]]
        axes.scatter([p.cost for p in points], [p.loss for p in points], s=16, color=colour, alpha=0.45, marker=marker)
        edge = fronts.front(sides[min(sides)])
        costs, losses = [p.cost for p in edge], [p.loss for p in edge]
        if edge:  # it begins above its quickest or smallest point, and goes on beyond the best one
            costs, losses = [costs[0], *costs, 2.0], [2 * own.worst, *losses, losses[-1]]
        axes.step(costs, losses, where="post", color=colour, label=title, linewidth=1.2)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.02 * own.worst, own.worst)
    axes.set_xlabel("size, of float32" if own.cost == SIZE else f"time, {own.cost}, of onnxruntime's float32")
    axes.set_ylabel(UNIT[own.model])
    axes.set_title(TITLE[own.model], loc="left")
    axes.legend(frameon=False, loc="upper right")
