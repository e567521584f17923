from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tidemill.core import registry
from tidemill.core.errors import EngineFailed, MissingInput, RefusedModel
from tidemill.steps.chain import build, read
from tidemill.steps.step import Function, Place, Step, Values

HERE = Place(Path(__file__).parent)


class Break(Step, frozen=True, kw_only=True):
    """A step from outside that breaks."""

    def apply(self, values: Values) -> Values:
        raise ZeroDivisionError("secret words of a request")


class NoStruct(Step, frozen=True, kw_only=True):
    """A step from outside whose library is not installed."""

    def bind(self, place: Place) -> Function:
        import a_library_that_is_not_there  # noqa: F401

        return self.apply


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.known(), "step.break", f"{__name__}:Break")
    monkeypatch.setitem(registry.known(), "step.no-library", f"{__name__}:NoStruct")
    monkeypatch.setattr(registry, "import_module", lambda name: sys.modules[name])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"step": "resiz"}, "no step 'resiz', did you mean 'resize'"),
        ({"step": "resize", "widht": 3}, "no option 'widht', did you mean 'width'"),
        ({"step": "resize", "width": "3", "height": 3}, "Expected `int"),
        ({"step": "resize", "width": 3}, "wants `width` and `height`"),
        ({"step": "resize", "width": 99_999, "height": 3}, "<= 16384"),
        ({"step": "top"}, "`input`"),
        ({"step": "top", "input": "y", "labels": "../labels.txt"}, "outside the model's folder"),
        ({"step": "top", "input": "y", "labels": "gone.txt"}, "no file 'gone.txt'"),
        ({"step": "tokenise", "file": "test_chain.py"}, "is no tokenizer"),
        ({"step": "cast", "input": "x", "datatype": "FP31"}, "no datatype 'FP31'"),
        ({"step": "constant", "output": "x", "shape": [2**20, 2**20]}, "too large"),
        ({"step": "normalise", "std": [0.0]}, "std not 0"),
        ({"stepp": "resize"}, "expected to name a step"),
        ({"step": 7}, "expected to name a step"),
    ],
)
def test_a_table_that_is_no_step_is_refused_with_its_place_and_what_is_meant(table: dict[str, Any], says: str) -> None:
    with pytest.raises(RefusedModel, match=says) as refused:
        build([{"step": "text"}, table], HERE, "[[pre]]")
    assert "[[pre]] 2" in refused.value.message


def test_every_step_says_what_it_does_and_takes_its_own_defaults() -> None:
    names = [name for name in registry.names("step") if f"step.{name}" in registry.BUILT_IN]
    assert len(names) > 20
    for name in names:
        kind = registry.load(f"step.{name}")
        assert issubclass(kind, Step)
        assert kind.__doc__
        needed = {
            field.encode_name: {"rate_hz": 1000, "columns": ["x"], "values": ["x"]}.get(field.encode_name, 64)
            if field.encode_name in {"rate_hz", "columns", "values", "size", "hop", "width", "height"}
            else "x"
            for field in structs.fields(kind)
            if field.required
        }
        assert read({"step": name, **needed}) is not None


def test_what_a_step_reads_must_have_been_given() -> None:
    chain = build([{"step": "softmax", "input": "logits"}], HERE)
    with pytest.raises(MissingInput, match="'logits'; there are data"):
        chain({"data": b""})


@pytest.mark.usefixtures("outside")
def test_a_step_from_outside_that_breaks_is_told_without_its_words() -> None:
    with pytest.raises(EngineFailed, match="'break' failed with ZeroDivisionError") as failed:
        build([{"step": "break"}], HERE)({"data": b""})
    assert "secret" not in failed.value.message


@pytest.mark.usefixtures("outside")
def test_a_step_whose_library_is_missing_refuses_the_model() -> None:
    with pytest.raises(RefusedModel, match="needs a_library_that_is_not_there: pip install"):
        build([{"step": "no-library"}], HERE)


def test_steps_leave_what_they_do_not_change() -> None:
    chain = build([{"step": "text"}, {"step": "constant", "output": "x", "shape": [2]}], HERE)
    found = chain({"data": b"tide"})
    assert found["data"] == b"tide"
    assert found["text"] == ["tide"]
    assert found["x"].tolist() == [0, 0]
    assert chain.accepts == ("text/plain",)
