from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from onnx import helper

from compress_nets import FLOAT, Data, Rounding, Same, conv_net, data, decoded, mlp, model, random, run
from tidemill.compress import proto_stream
from tidemill.compress.forms import Activation, Codebook, Dense, Form, Planes, Uniform
from tidemill.compress.graph import Graph
from tidemill.compress.layer_cache import LayerCache
from tidemill.compress.pipeline import Settings, Solved, Step, layerwise
from tidemill.compress.rollback import meet
from tidemill.compress.stacking import stack_forms
from tidemill.compress.task import LayerResult, LayerTask, Solver
from tidemill.core.errors import DiskFull, InvalidRecipe, QualityLost
from tidemill.core.tensor import Array

Work = Callable[..., Solved]


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def work(tmp_path: Path, pool: Executor) -> Work:
    def go(
        graph: Graph,
        rows: Data,
        solver: Solver,
        folder: str = "work",
        names: tuple[str, ...] = (),
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Solved:
        given = Settings(work=tmp_path / folder, executor=pool, emitter=decoded)
        layers = [layer for layer in graph.layers() if not names or layer.name in names]
        return layerwise(graph, rows, solver, layers, options or {}, dataclasses.replace(given, **more))

    return go


def loss(graph: Graph, other: Graph, rows: Data) -> float:
    feeds = rows.held.feeds
    return float(np.mean((run(graph, feeds)[0] - run(other, feeds)[0]) ** 2))


def same(one: Graph, other: Graph) -> bool:
    pieces = [b"".join(proto_stream.chunks(graph.model, graph.arrays)) for graph in (one, other)]
    return pieces[0] == pieces[1]


class Stops(Rounding):
    """Fails at the `after`-th layer, as a kill would."""

    left = 10_000
    calls = 0

    def solve(self, task: LayerTask) -> LayerResult:
        type(self).left -= 1
        type(self).calls += 1
        if type(self).left < 0:
            raise KeyboardInterrupt
        return super().solve(task)


@pytest.mark.parametrize(("made", "shape"), [(mlp, [24]), (conv_net, [3, 12, 12])])
def test_every_layer_is_solved_and_put_back(work: Work, made: Callable[[], Any], shape: list[int]) -> None:
    graph, rows = Graph.from_model(made()), data(shape)
    solved = work(graph, rows, Rounding(bits=6))
    assert [layer.name for layer in solved.results] == [layer.name for layer in graph.layers()]
    assert 0 < loss(graph, solved.graph, rows) < 0.01
    for layer, result in solved.results.items():
        np.testing.assert_array_equal(solved.graph.weight(layer), result.form.decode())


def test_aiming_at_the_original_loses_less_than_each_layer_for_itself(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24], rows=2000, held=500)
    losses = {}
    for sequential in ("stage", "off"):
        for corrects in (False, True):
            name = f"{sequential}{corrects}"
            solved = work(graph, rows, Rounding(bits=3), name, sequential=sequential, corrects=corrects)
            losses[name] = loss(graph, solved.graph, rows)
    assert losses["stageTrue"] < 0.9 * losses["stageFalse"]
    assert losses["stageTrue"] < 0.9 * losses["offTrue"]


def test_mean_outputs_are_brought_back_by_the_bias(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24], rows=400)
    solved = work(graph, rows, Rounding(bits=2), names=("first",))
    before, after = (each.session(["h1"]).run(None, rows.fit.feeds)[0] for each in (graph, solved.graph))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-4)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(work: Work) -> None:
    graph, rows = Graph.from_model(conv_net()), data([3, 12, 12], rows=16)
    unbroken = work(graph, rows, Stops(bits=3), "unbroken")
    for stop in range(1, 5):
        Stops.left = stop
        with pytest.raises(KeyboardInterrupt):
            work(graph, rows, Stops(bits=3), f"broken-{stop}")
        Stops.left, Stops.calls = 10_000, 0
        resumed = work(graph, rows, Stops(bits=3), f"broken-{stop}")
        tasks = sum(layer.groups for layer in graph.layers())
        assert Stops.calls == tasks - stop + (1 if stop == 4 else 0)  # a layer of two groups is not half kept
        assert same(unbroken.graph, resumed.graph)
        assert [dataclasses.astuple(r)[3:] for r in unbroken.results.values()] == [
            dataclasses.astuple(r)[3:] for r in resumed.results.values()
        ]


def test_a_finished_run_is_answered_from_disk(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24])
    first = work(graph, rows, Stops())
    Stops.calls = 0
    again = work(graph, rows, Stops())
    assert Stops.calls == 0
    assert same(first.graph, again.graph)


@pytest.mark.parametrize("change", ["rows", "weights", "bits", "seed", "layers"])
def test_nothing_is_answered_from_another_question(work: Work, change: str) -> None:
    graph, rows, solver, seed = Graph.from_model(mlp()), data([24]), Stops(), 0
    work(graph, rows, solver)
    if change == "rows":
        rows.fit.feeds["x"][3, 3] += 0.5
    elif change == "weights":
        graph.put("w3", graph.array("w3") * 2)
    elif change == "bits":
        solver = Stops(bits=3)
    elif change == "seed":
        seed = 1
    Stops.calls = 0
    work(graph, rows, solver, seed=seed, names=("first", "second") if change == "layers" else ())
    assert Stops.calls == (2 if change == "layers" else 3)


def test_two_runs_are_bit_identical(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24])
    assert same(work(graph, rows, Rounding(), "one").graph, work(graph, rows, Rounding(), "two").graph)


def test_a_refused_layer_stays_as_it_was_and_is_listed(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24])
    solved = work(graph, rows, Rounding(refuses="second"))
    assert [(each.node, each.reason) for each in solved.refused] == [("second", "it was told to")]
    second = graph.layers()[1]
    np.testing.assert_array_equal(solved.graph.weight(second), graph.weight(second))
    assert len(solved.results) == 2


def test_no_layer_is_an_invalid_recipe(work: Work) -> None:
    with pytest.raises(InvalidRecipe, match="no layer was named; the model's layers are first, second, third"):
        work(Graph.from_model(mlp()), data([24]), Rounding(), names=("nothing",))


def test_too_few_rows_are_noted(work: Work) -> None:
    solved = work(Graph.from_model(mlp()), data([24], rows=12), Rounding())
    assert all("12 rows" in " ".join(result.notes) for result in solved.results.values())


def test_layers_that_share_weights_are_solved_once(work: Work) -> None:
    node = helper.make_node
    made = model(
        [
            node("MatMul", ["x", "w"], ["h"], name="one"),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "w"], ["y"], name="two"),
        ],
        {"x": (FLOAT, ["n", 24])},
        ["y"],
        {"w": random(24, 24)},
    )
    graph, rows = Graph.from_model(made), data([24])
    solved = work(graph, rows, Rounding())
    assert [layer.name for layer in solved.results] == ["one"]
    assert solved.notes == ("one shares its weights with two: solved once for all",)
    assert list(solved.graph.arrays) == ["w"]
    assert loss(graph, solved.graph, rows) > 0


def test_zeros_of_a_layer_pruned_before_are_kept(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24])
    for layer in graph.layers():
        weight = graph.weight(layer).copy()
        weight[:, ::2] = 0
        graph.set_dense(layer, weight)
    solved = work(graph, rows, Same())
    assert all((solved.graph.weight(layer)[:, ::2] == 0).all() for layer in graph.layers())


def test_progress_tells_the_time_left(work: Work) -> None:
    told: list[Step] = []
    clock = iter(range(100))
    work(Graph.from_model(mlp()), data([24]), Rounding(), progress=told.append, clock=lambda: float(next(clock)))
    assert [step.done for step in told] == [0, 1, 2, 3]
    assert told[0].left_s is None
    assert all(step.left_s is not None for step in told[1:])
    assert told[-1].left_s == 0


def test_a_full_disk_is_said_and_nothing_stays_behind(work: Work, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DiskFull, match="no room left"):
        work(Graph.from_model(mlp()), data([24]), Rounding())
    assert not list((tmp_path / "work").glob("spool-*"))


@pytest.mark.slow
def test_processes_solve_as_a_thread_does(work: Work) -> None:
    from tidemill.compress.quantise.gptq import METHOD

    assert METHOD.solver is not None
    graph, rows, options = Graph.from_model(mlp()), data([24]), METHOD.settle({})
    here = work(graph, rows, METHOD.solver, "here", options=options)
    there = work(graph, rows, METHOD.solver, "there", options=options, executor=None, jobs=2)
    assert same(here.graph, there.graph)


# -- keeping a metric --------------------------------------------------------------------------------------------------


def test_the_worst_layers_get_their_weights_back(work: Work) -> None:
    graph, rows = Graph.from_model(mlp()), data([24], rows=500, held=100)
    solved = work(graph, rows, Rounding(bits=3), corrects=False)
    reference = float(np.mean(run(graph, rows.held.feeds)[0] ** 2))

    def judge(other: Graph) -> float:
        return 1 - loss(graph, other, rows) / reference

    whole = judge(solved.graph)
    kept = meet(solved, judge, (1 + whole) / 2, emitter=decoded)
    assert 1 <= len(kept.reverted) < 3
    assert kept.share == judge(kept.graph) >= (1 + whole) / 2
    for layer in graph.layers():
        assert np.array_equal(kept.graph.weight(layer), graph.weight(layer)) == (layer.name in kept.reverted)
    assert meet(solved, judge, whole - 0.01).reverted == ()
    with pytest.raises(QualityLost, match="and 1 was asked for"):
        meet(solved, judge, 1.0, rolls_back=False)
    with pytest.raises(QualityLost, match="all layers but one"):
        meet(solved, judge, 1.1, emitter=decoded)


# -- forms -------------------------------------------------------------------------------------------------------------


def forms() -> st.SearchStrategy[Form]:
    def uniform(seed: int, rows: int, columns: int, bits: int, block: int) -> Uniform:
        rng = np.random.default_rng(seed)
        blocks = 1 if not block else -(-columns // block)
        return Uniform(
            rng.integers(0, 2**bits, (rows, columns), np.uint8),
            rng.random((rows, blocks), np.float32),
            rng.integers(0, 2**bits, (rows, blocks), np.uint8),
            bits,
            block,
        )

    uniforms = st.builds(
        uniform, st.integers(0, 99), st.just(3), st.just(7), st.integers(1, 8), st.sampled_from((0, 2, 4))
    )
    books = st.builds(
        lambda seed, levels, shared: Codebook(
            np.random.default_rng(seed).integers(0, levels, (3, 7), np.uint8),
            np.random.default_rng(seed).random((1 if shared else 3, levels), np.float32),
        ),
        st.integers(0, 99),
        st.integers(2, 16),
        st.booleans(),
    )
    dense = st.builds(lambda seed: Dense(random(3, 7, seed=seed)), st.integers(0, 99))
    planes = st.builds(lambda a, b: Planes((a, b)), uniforms, uniforms)
    return st.one_of(uniforms, books, dense, planes)


@hypothesis_settings(max_examples=40, deadline=None)
@given(form=forms(), number=st.floats(0, 1), refused=st.booleans(), dynamic=st.booleans())
def test_answers_come_back_from_disk_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, form: Form, number: float, refused: bool, dynamic: bool
) -> None:
    cache = LayerCache(tmp_path_factory.mktemp("cache"))
    bias = random(3) if dynamic else None
    answer = LayerResult(form, bias, Activation(0.5, 3, 8, dynamic), number, number / 3, 0.01, ("a note",))
    cache.put("key", "because" if refused else answer)
    read = cache.get("key")
    if refused:
        assert read == "because"
        return
    assert isinstance(read, LayerResult)
    np.testing.assert_array_equal(read.form.decode(), form.decode())
    assert type(read.form) is type(form)
    assert (read.error_fit, read.error_held, read.damping, read.notes) == (number, number / 3, 0.01, ("a note",))
    assert read.activation == answer.activation
    assert (read.bias is None) == (bias is None)


def test_a_spoilt_answer_counts_as_absent(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path)
    cache.put("key", LayerResult(Dense(random(3, 7)), None, None, 0.1, 0.2))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for spoilt in (b"", whole[:100], whole[:-30], b"x" * 500):
        path.write_bytes(spoilt)
        assert cache.get("key") is None


@hypothesis_settings(max_examples=40, deadline=None)
@given(one=forms(), two=forms())
def test_forms_of_groups_stack_row_below_row(one: Form, two: Form) -> None:
    both: Array = np.concatenate([one.decode(), two.decode()])
    np.testing.assert_array_equal(stack_forms([one, two]).decode(), both)


def test_a_worker_holds_neither_onnx_nor_an_engine() -> None:
    """Each worker would hold their code once more: a process is as large as what it imports."""
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tidemill.__main__, tidemill.compress.solving, tidemill.compress.quantise.gptq\n"
            "print(*{'onnx', 'onnxruntime', 'openvino', 'scipy'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == ""
