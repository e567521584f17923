from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import EngineFailed, PromptTooLong, RefusedModel, WrongValue
from tidemill.core.package import Embedding
from tidemill.core.tensor import Signature, TensorSpec
from tidemill.deploy.embedder import WASTE_MAX, Embedder, groups

IDS = TensorSpec("input_ids", "INT64", (-1, -1))
MASK = TensorSpec("attention_mask", "INT32", (-1, -1))
STATES = TensorSpec("states", "FP32", (-1, -1, 3))
VECTORS = TensorSpec("vectors", "FP32", (-1, 3))
BOTH = Signature((IDS, MASK), (STATES, VECTORS))


def small(wish: Embedding = Embedding(), signature: Signature = BOTH) -> Embedder:  # noqa: B008 - frozen
    """With words of a character each: a, b, … are 4, 5, …; 1 begins a text, 2 ends it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3} | {letter: 4 + n for n, letter in enumerate("abcdefghij")}

    def made() -> Tokenizer:
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
        return tokenizer

    cutting, whole = made(), made()
    cutting.enable_truncation(wish.tokens_max)
    return Embedder(wish, signature, cutting, whole)


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 64), st.integers(1, 10_000))
def test_every_text_runs_once_in_a_batch_that_keeps_its_bounds(
    lengths: list[int], rows_max: int, places_max: int
) -> None:
    made = groups(lengths, rows_max, places_max)
    assert sorted(place for group in made for place in group) == list(range(len(lengths)))
    for group in made:
        of_group = [lengths[place] for place in group]
        places = len(group) * max(of_group)
        assert len(group) <= rows_max
        assert len(group) == 1 or places <= places_max
        assert sum(of_group) >= (1 - WASTE_MAX) * places - 1e-6


@given(st.lists(st.integers(1, 500), min_size=1, max_size=100))
def test_no_shorter_text_runs_in_a_later_batch(lengths: list[int]) -> None:
    made = groups(lengths, 16, 4096)
    for before, after in pairwise(made):
        assert max(lengths[place] for place in before) <= min(lengths[place] for place in after)


def test_texts_are_tokenised_as_the_model_reads_them_and_padded_with_no_mask() -> None:
    embedder = small()
    rows = embedder.encoded(["a b", "", "c"])
    assert rows == [[1, 4, 5, 2], [1, 2], [1, 6, 2]]
    inputs = embedder.tensors(rows)
    assert inputs["input_ids"].tolist() == [[1, 4, 5, 2], [1, 2, 0, 0], [1, 6, 2, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert [inputs[spec.name].dtype for spec in BOTH.inputs] == [np.int64, np.int32]


def test_long_text_is_cut_with_its_end_or_refused_as_the_model_says() -> None:
    text = " ".join("abcdefgh")
    assert small(Embedding(tokens_max=5)).encoded([text]) == [[1, 4, 5, 6, 2]]
    refusing = small(Embedding(tokens_max=5, truncate=False))
    assert refusing.encoded(["a b c"]) == [[1, 4, 5, 6, 2]]
    with pytest.raises(PromptTooLong, match=r"text 1 has 10 tokens, the most this model reads is 5") as caught:
        refusing.encoded(["a", text])
    assert caught.value.param == "input"
    with pytest.raises(PromptTooLong, match="600 characters"):
        refusing.encoded(["a b " * 150])


@pytest.mark.parametrize(
    ("tokens", "why"), [((), "is empty"), ((4, 14), "holds 14; this model's are 0 to 13"), ((-1,), "holds -1")]
)
def test_tokens_of_the_caller_are_checked(tokens: tuple[int, ...], why: str) -> None:
    with pytest.raises(WrongValue, match=why):
        small().checked([(4,), tokens])


def test_tokens_of_the_caller_are_never_cut() -> None:
    with pytest.raises(PromptTooLong, match="6 tokens"):
        small(Embedding(tokens_max=5)).checked([(4,) * 6])


def test_tokens_become_text_again() -> None:
    embedder = small()
    assert embedder.tokens("a b", special=True).tolist() == [1, 4, 5, 2]
    assert embedder.tokens("a b", special=False).tolist() == [4, 5]
    assert embedder.text([1, 4, 5, 2], special=False) == "a b"
    assert embedder.text([1, 4, 5, 2], special=True) == "[CLS] a b [SEP]"
    with pytest.raises(WrongValue, match="no token 14"):
        embedder.text([14], special=True)


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [("mean", [[2, 3, 4], [1, 0, 0]]), ("first", [[1, 1, 1], [1, 0, 0]]), ("last", [[3, 5, 7], [1, 0, 0]])],
)
def test_states_are_pooled_over_the_tokens_that_are_there(pooling: str, wanted: list[list[float]]) -> None:
    wish = Embedding(output="states", pooling=pooling, normalise=False)  # type: ignore[arg-type]
    states = np.array([[[1, 1, 1], [3, 5, 7]], [[1, 0, 0], [9, 9, 9]]], np.float32)
    assert small(wish).vectors(states, [2, 1], 0).tolist() == wanted


def test_fewer_dimensions_are_the_first_ones_of_length_one_again() -> None:
    answer = np.array([[3, 4, 12]], np.float32)
    assert np.allclose(small().vectors(answer, [1], 0), answer / 13)
    for wish in (Embedding(), Embedding(normalise=False)):
        assert np.allclose(small(wish).vectors(answer, [1], 2), [[0.6, 0.8]])
    small().check_dimensions(3)
    for wrong in (4, -1):
        with pytest.raises(WrongValue, match=f"{wrong} dimensions are wanted; the model makes 3"):
            small().check_dimensions(wrong)


def test_output_is_the_only_one_of_two_dimensions_unless_it_is_named() -> None:
    assert small().output == VECTORS
    assert small(Embedding(output="states")).output == STATES
    assert small(signature=Signature((IDS,), (STATES,))).output == STATES


@pytest.mark.parametrize(
    ("wish", "signature", "why"),
    [
        (Embedding(output="y"), BOTH, "names the output 'y'; the model has states, vectors"),
        (Embedding(ids="tokens"), BOTH, "'tokens'; the model has input_ids, attention_mask"),
        (Embedding(), Signature((IDS, TensorSpec("extra", "FP32", (-1, 2))), (VECTORS,)), "wants extra too"),
        (Embedding(), Signature((IDS,), (TensorSpec("y", "FP32", (-1,)),)), "none is the only one"),
        (Embedding(output="y"), Signature((IDS,), (TensorSpec("y", "FP32", (-1,)),)), "neither"),
    ],
)
def test_model_that_cannot_embed_is_refused_with_the_reason(wish: Embedding, signature: Signature, why: str) -> None:
    with pytest.raises(RefusedModel, match=why):
        small(wish, signature)


def test_answer_of_another_shape_is_the_models_fault() -> None:
    with pytest.raises(EngineFailed, match=r"shape \[1, 3\] for 2 texts"):
        small().vectors(np.zeros((1, 3), np.float32), [1, 1], 0)
