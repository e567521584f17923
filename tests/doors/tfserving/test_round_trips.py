"""What TensorFlow Serving's door answers can be asked and is the same; REST and gRPC mean the same by examples."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from message_strategies import arrays, same
from tidemill.core import schemas
from tidemill.core.errors import CallerError
from tidemill.core.tensor import DATATYPES, DTYPES, Array, Signature, TensorSpec
from tidemill.doors.tfserving import examples, inference_grpc, results, translate, translate_examples

Input = schemas.message("tensorflow.serving.Input")
ClassificationResult = schemas.message("tensorflow.serving.ClassificationResult")
RegressionResult = schemas.message("tensorflow.serving.RegressionResult")

BYTES_MAX = 1 << 20
QUICK = settings(max_examples=200, deadline=None)
NAMES = st.sampled_from(["a", "b", "input", "signature_name", "é", 'quo"te'])


def free(tensors: dict[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, DATATYPES[array.dtype], (-1,) * array.ndim) for name, array in tensors.items())


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Array]:
    """Outputs with one row each; strings under names that keep any bytes."""
    count = draw(st.integers(1, 3))
    found = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        datatype = draw(st.sampled_from(list(DTYPES)))
        shape = (count, *draw(st.lists(st.integers(1, 3), max_size=2)))
        found[name + "_bytes" if datatype == "BYTES" else name] = draw(arrays(datatype, shape))
    return found


@QUICK
@given(answers(), st.booleans())
def test_what_predict_answers_can_be_asked_and_is_the_same(tensors: dict[str, Array], rows: bool) -> None:
    signature = Signature(free(tensors), ())
    asked_how = translate.Question(None, rows)  # type: ignore[arg-type]
    told = json.loads(translate.answer(asked_how, tensors))
    (value,) = told.values()
    assert set(told) == {"predictions" if rows else "outputs"}
    body = json.dumps({"instances" if rows else "inputs": value}).encode()
    found = translate.question(signature, body)
    assert found.rows == rows
    assert found.work.inputs.keys() == tensors.keys()
    assert all(same(quiet(found.work.inputs[name]), quiet(array)) for name, array in tensors.items())


def quiet(array: Array) -> Array:
    """JSON has one NaN."""
    if array.dtype.kind not in "fV":
        return array
    with np.errstate(invalid="ignore"):  # one that signals says so as it is cast
        return np.where(np.isnan(array.astype(np.float64)), array.dtype.type(math.nan), array)


features = st.dictionaries(
    st.sampled_from(["i", "f", "s", "more"]),
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        st.lists(st.floats(width=32), max_size=3),
        st.lists(st.binary(max_size=4), max_size=3),
    ),
    max_size=4,
)
SPECS = (TensorSpec("i", "INT64", (-1, -1)), TensorSpec("f", "FP32", (-1, -1)), TensorSpec("s", "BYTES", (-1, -1)))


def as_json(given_features: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        name: [{"b64": base64.b64encode(each).decode()} if isinstance(each, bytes) else each for each in values]
        for name, values in given_features.items()
    }


def as_message(given_features: dict[str, list[Any]]) -> Any:
    example = schemas.message("tensorflow.Example")()
    for name, values in given_features.items():
        kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(values[0])] if values else ""
        feature = example.features.feature[name]
        if kind:
            getattr(feature, kind).value.extend(values)
    return example


@QUICK
@given(st.lists(features, min_size=1, max_size=3), st.none() | features, st.sets(st.sampled_from(SPECS), min_size=1))
def test_examples_mean_the_same_over_rest_and_grpc(
    each: list[dict[str, list[Any]]], context: dict[str, list[Any]] | None, specs: set[TensorSpec]
) -> None:
    signature = Signature(tuple(sorted(specs, key=lambda spec: spec.name)), ())
    body: dict[str, Any] = {"examples": [as_json(one) for one in each]}
    message = Input()
    if context is None:
        message.example_list.examples.extend([as_message(one) for one in each])
    else:
        body["context"] = as_json(context)
        message.example_list_with_context.examples.extend([as_message(one) for one in each])
        message.example_list_with_context.context.CopyFrom(as_message(context))
    over_rest = outcome(lambda: rest(signature, json.dumps(body).encode()))
    over_grpc = outcome(lambda: examples.tensors(signature, inference_grpc.examples(message), BYTES_MAX))
    if isinstance(over_rest, str) or isinstance(over_grpc, str):
        assert over_rest == over_grpc
        return
    assert over_rest.keys() == over_grpc.keys() == {spec.name for spec in specs}
    assert all(same(quiet(over_rest[name]), quiet(array)) for name, array in over_grpc.items())
    for name, array in over_grpc.items():
        held = [one.get(name, (context or {}).get(name)) for one in each]
        assert array.tolist() == held or array.dtype == np.float32


def rest(signature: Signature, body: bytes) -> Any:
    return translate_examples.question(signature, body, lambda _: (None, ()), BYTES_MAX).work.inputs


def outcome(act: Any) -> Any:
    """The tensors, or the code of what is wrong."""
    try:
        return act()
    except CallerError as error:
        return error.code


@QUICK
@given(features, features)
def test_encoded_examples_hold_the_context_where_they_have_no_value_themselves(
    one: dict[str, list[Any]], context: dict[str, list[Any]]
) -> None:
    parser = Signature((TensorSpec("examples", "BYTES", (-1,)),), ())
    message = Input()
    message.example_list_with_context.examples.append(as_message(one))
    message.example_list_with_context.context.CopyFrom(as_message(context))
    (over_grpc,) = examples.tensors(parser, inference_grpc.examples(message), BYTES_MAX)["examples"]
    body = {"examples": [as_json(one)], "context": as_json(context)}
    (over_rest,) = rest(parser, json.dumps(body).encode())["examples"]
    for encoded in (over_grpc, over_rest):
        found = schemas.message("tensorflow.Example").FromString(encoded)
        assert found.features.feature.keys() == context.keys() | one.keys()
        for name, values in (context | one).items():
            feature = found.features.feature[name]
            kind = feature.WhichOneof("kind")
            got = list(getattr(feature, kind).value) if kind else []
            assert repr(got) == repr([float(np.float32(each)) if isinstance(each, float) else each for each in values])


rankings = st.integers(0, 3).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.text(max_size=4), st.floats(width=32)), min_size=width, max_size=width),
        min_size=1,
        max_size=3,
    )
)


@QUICK
@given(rankings)
def test_classes_and_scores_come_out_as_they_were(rows: list[list[tuple[str, float]]]) -> None:
    labels = [[label.encode("utf-8", "surrogatepass") for label, _ in row] for row in rows]
    names = np.empty((len(rows), len(rows[0])), object)
    for place, row in enumerate(labels):
        names[place] = row
    scores = np.array([[score for _, score in row] for row in rows], np.float32).reshape(names.shape)
    found = results.ranking(results.Scoring("classes", "scores"), (), {"classes": names, "scores": scores}, len(rows))
    told = [[label.decode("utf-8", "replace") for label in row] for row in labels]
    over_rest = json.loads(translate_examples.classes(found))["results"]
    assert [[label for label, _ in row] for row in over_rest] == told
    assert repr(np.array([[float(score) for _, score in row] for row in over_rest], np.float32)) == repr(
        np.array([[float(score) for score in row] for row in scores], np.float32)
    )
    over_grpc = ClassificationResult.FromString(inference_grpc.classification(found).SerializeToString())
    assert [[each.label for each in row.classes] for row in over_grpc.classifications] == told
    assert repr([[each.score for each in row.classes] for row in over_grpc.classifications]) == repr(scores.tolist())


@QUICK
@given(st.lists(st.floats(width=32), min_size=1, max_size=5), st.booleans())
def test_values_come_out_as_they_were(given_values: list[float], column: bool) -> None:
    array = np.array(given_values, np.float32)
    found = results.values("y", {"y": array[:, np.newaxis] if column else array}, len(given_values))
    body = json.loads(translate_examples.values(found))
    assert repr(body["results"]) == repr(body["result"])
    assert np.array(body["results"], np.float32).tobytes() == quiet(array).tobytes()
    over_grpc = RegressionResult.FromString(inference_grpc.regression(found).SerializeToString())
    assert repr([each.value for each in over_grpc.regressions]) == repr(array.tolist())


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["b64", "x", "f"]) | st.text(max_size=2), inner, max_size=3)
        ),
        max_leaves=10,
    ),
    st.sampled_from(list(DTYPES)),
    st.booleans(),
)
def test_whatever_is_sent_as_examples_is_tensors_or_the_caller_s_fault(
    value: Any, datatype: str, as_list: bool
) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, -1)),), ())
    body = json.dumps({"examples": [value] if as_list else value, "context": value if as_list else {}}).encode()
    try:
        found = rest(signature, body)
    except CallerError:
        return
    assert found["x"].dtype == DTYPES[datatype]
    signature.check(found)
