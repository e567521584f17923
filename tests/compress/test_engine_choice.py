"""What `compress --engine` notes in a package."""

from __future__ import annotations

import tomllib

import pytest

from tidemill.compress.engine_choice import chosen, noted
from tidemill.compress.report.facts import Speed
from tidemill.core.errors import RefusedModel
from tidemill.repository.lineage import Measured


def speed(engine: str, shape: str, ratio: float, base: float = 1.0) -> Speed:
    return Speed(engine, shape, 10.0, 10.0, Measured(ratio, ratio, ratio), base)


QUICK = (
    speed("onnxruntime", "1 × 16", 0.4), speed("openvino", "1 × 16", 0.5, 0.9),
    speed("onnxruntime", "8 × 128", 0.4), speed("openvino", "8 × 128", 0.4, 0.5),
)  # fmt: skip


def test_auto_takes_the_quicker_one_over_all_shapes() -> None:
    assert chosen("auto", QUICK, agree=True) == "openvino"
    assert chosen("auto", QUICK[:2], agree=True) == "onnx"


def test_auto_keeps_to_the_engine_that_judged_where_the_two_disagree_or_one_was_not_measured() -> None:
    assert chosen("auto", QUICK, agree=False) == "onnx"
    assert chosen("auto", QUICK[:3] + QUICK[:0], agree=True) == "onnx"
    assert chosen("auto", (), agree=True) == "onnx"


@pytest.mark.parametrize("asked", ["", "onnx", "openvino"])
def test_what_is_named_is_noted(asked: str) -> None:
    assert chosen(asked, QUICK, agree=False) == asked


@pytest.mark.parametrize(
    "text",
    ["", 'engine = "onnx"\n', "threads = 2", '# engine = "x"\nlabels = ["engine = 1"]\n\n[batching]\nbatched = true\n'],
)
def test_the_engine_is_put_before_the_tables_and_the_rest_stays(text: str) -> None:
    assert tomllib.loads(noted(text, "openvino")) == {**tomllib.loads(text), "engine": "openvino"}


def test_a_file_that_cannot_be_edited_by_lines_is_refused() -> None:
    with pytest.raises(RefusedModel, match="leave out --engine"):
        noted('labels = ["""\n[no table\nengine = 3\n"""]\nengine = "onnx"\n', "openvino")
