from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tidemill.compress.data import Data, Limits, Rows, load, split
from tidemill.core.errors import BadData
from tidemill.core.tensor import Array, Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, (TensorSpec("y", "FP32", (-1, 1)),))


ROWS = signature(TensorSpec("x", "FP32", (-1, 3)))
TWO = signature(TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1, 1)))
BATCH_OF_4 = signature(TensorSpec("x", "FP32", (4, 3)))
CALLS = signature(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("rate", "INT64", ()))
TOKENS = signature(*(TensorSpec(name, "INT64", (-1, -1)) for name in ("input_ids", "attention_mask", "token_type_ids")))
PICTURES = signature(TensorSpec("image", "FP32", (-1, 3, 4, 6)))


def saved(path: Path, **arrays: Array) -> Path:
    np.savez(path, **arrays)
    return path


def values(rows: Rows, name: str = "x") -> Array:
    return np.concatenate([feeds[name] for feeds in rows])


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Each row's values are its number, and so is its label."""
    each = np.arange(50)
    return saved(tmp_path / "a.npz", x=np.repeat(each[:, None], 3, 1).astype(np.float32), labels=each)


# -- splitting ---------------------------------------------------------------------------------------------------------


@given(st.integers(2, 400), st.integers(1, 200), st.floats(0.01, 0.9), st.integers(0, 5))
def test_no_row_is_both_learned_from_and_held_out(count: int, rows_max: int, held: float, seed: int) -> None:
    limits = Limits(rows_max=rows_max, held=held, seed=seed)
    fit, kept = split(count, None, limits)
    assert not set(fit) & set(kept)
    assert len(fit)
    assert len(kept)
    assert len(fit) <= rows_max
    assert max(*fit, *kept) < count
    assert [part.tolist() for part in split(count, None, limits)] == [fit.tolist(), kept.tolist()]


def test_rows_that_the_source_holds_out_are_never_learned_from(tmp_path: Path) -> None:
    held = np.arange(20) >= 15
    data = load(saved(tmp_path / "a.npz", x=np.zeros((20, 3), np.float32), labels=np.arange(20), held=held), ROWS)
    assert data.labels is not None
    assert data.labels.tolist() == [15, 16, 17, 18, 19]
    assert len(data.fit) == 15


def test_every_row_of_another_source_is_held_out(npz: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "b.npz", x=np.full((7, 3), 99, np.float32))
    data = load(npz, ROWS, held=other)
    assert len(data.fit) == 50
    assert (values(data.held) == 99).all()
    assert "held out" in data.source


def test_rows_are_bounded_and_drawn_by_the_seed(npz: Path) -> None:
    some = load(npz, ROWS, limits=Limits(rows_max=10, seed=1))
    assert len(some.fit) == 10
    assert some.sha256() == load(npz, ROWS, limits=Limits(rows_max=10, seed=1)).sha256()
    assert some.sha256() != load(npz, ROWS, limits=Limits(rows_max=10, seed=2)).sha256()


# -- batches -----------------------------------------------------------------------------------------------------------


def test_batches_come_again_the_same_and_labels_stay_with_their_rows(npz: Path) -> None:
    data = load(npz, ROWS, limits=Limits(batch=4))
    assert data.labels is not None
    assert values(data.held)[:, 0].tolist() == data.labels.tolist()
    assert (values(data.held) == values(data.held)).all()
    assert [len(feeds["x"]) for feeds in data.held] == [4, 4, 4, 3]
    assert data.held.examples[0] == f"row {data.labels[0]}"


def test_model_of_a_fixed_batch_gets_full_batches_only(npz: Path) -> None:
    data = load(npz, BATCH_OF_4)
    assert {feeds["x"].shape for feeds in [*data.fit, *data.held]} == {(4, 3)}
    assert len(data.held) == 12
    assert data.labels is not None
    assert len(data.labels) == 12
    assert any("3 rows" in note for note in data.notes)


def test_fewer_rows_than_a_fixed_batch_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="takes 4 at once"):
        load(saved(tmp_path / "a.npz", x=np.zeros((5, 3), np.float32)), BATCH_OF_4)


def test_row_is_a_call_where_the_model_has_no_batches(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", x=np.zeros((6, 2, 3), np.float32), rate=np.full(6, 16_000))
    (first, *_) = load(path, CALLS).fit
    assert first["x"].shape == (2, 3)
    assert first["rate"].shape == ()


def test_integers_fit_floats_and_wide_numbers_narrow_ones(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", a=np.arange(8).reshape(4, 2), b=np.arange(4, dtype=np.int32)[:, None])
    for feeds in load(path, TWO).fit:
        assert (feeds["a"].dtype, feeds["b"].dtype) == (np.float32, np.int64)


# -- bad data ----------------------------------------------------------------------------------------------------------

F = np.float32


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.full((9, 3), np.nan, F)}, r"row \d of 'x' .* holds nan"),
        ({"x": np.full((9, 3), np.inf, F)}, "holds inf"),
        ({"x": np.full((9, 3), 1e300)}, "holds inf"),
        ({"x": np.zeros((0, 3), F)}, "has no rows"),
        ({"x": np.zeros((1, 3), F)}, "there are 1 rows"),
        ({"x": np.zeros((9, 4), F)}, r"shape \[9, 4\], expected \[rows, 3\]"),
        ({"x": np.zeros(9, F)}, r"shape \[9\], expected"),
        ({"x": np.array(["a"] * 9)}, "datatype <U1, expected FP32"),
        ({"x": np.zeros((9, 3), F), "labels": np.zeros(8)}, r"`labels` has shape \[8\], and there are 9 rows"),
        ({"x": np.zeros((9, 3), F), "labels": np.full(9, np.nan)}, "labels hold NaN"),
        ({"x": np.zeros((9, 3), F), "held": np.zeros(9)}, "float64, expected bool"),
        ({"x": np.zeros((9, 3), F), "held": np.ones(9, bool)}, "marks 9 of 9 rows"),
        ({"p": np.zeros((9, 3), F), "q": np.zeros((9, 3), F)}, "no array 'x'; it has p, q"),
    ],
)
def test_arrays_that_do_not_fit_are_told_with_value_and_expectation(
    tmp_path: Path, arrays: dict[str, Array], told: str
) -> None:
    with pytest.raises(BadData, match=told):
        load(saved(tmp_path / "a.npz", **arrays), ROWS)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a": np.zeros((4, 2), F)}, "no array 'b'"),
        ({"a": np.zeros((4, 2), F), "b": np.zeros((5, 1), np.int64)}, "differ in their rows"),
        ({"a": np.zeros((4, 2), F), "b": np.zeros((4, 1), F)}, "FP32, expected INT64"),
    ],
)
def test_every_input_must_be_there_and_fit(tmp_path: Path, arrays: dict[str, Array], told: str) -> None:
    with pytest.raises(BadData, match=told):
        load(saved(tmp_path / "a.npz", **arrays), TWO)


def test_integers_too_large_are_refused(tmp_path: Path) -> None:
    narrow = signature(TensorSpec("x", "INT8", (-1, 1)))
    with pytest.raises(BadData, match="from 0 to 300: too large for INT8"):
        load(saved(tmp_path / "a.npz", x=np.array([[0], [300]])), narrow)


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"no arrays", b"PK\x03\x04"])
def test_file_of_no_arrays_is_a_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match="holds no arrays"):
        load(tmp_path / name, ROWS)


def test_pickled_objects_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}] * 5), allow_pickle=True)
    with pytest.raises(BadData, match="holds no arrays"):
        load(tmp_path / "a.npy", ROWS)


def test_file_that_unpacks_too_large_is_refused(npz: Path) -> None:
    with pytest.raises(BadData, match="bytes, more than 500"):
        load(npz, ROWS, limits=Limits(bytes_max=500))


@pytest.mark.parametrize("source", ["nothing.npz", "nothing", "no.such.module:rows", "tidemill:nothing"])
def test_source_that_is_not_there_is_a_clear_error(source: str) -> None:
    with pytest.raises(BadData, match=source.partition(":")[0]):
        load(source, ROWS)


def test_file_of_another_kind_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(BadData, match=r"known are \.npz, \.npy, \.csv, \.txt"):
        load(tmp_path / "a.parquet", ROWS)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_table_without_names_may_end_with_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{i},{i},{i},{i}\n" for i in range(10)))
    data = load(tmp_path / "a.csv", ROWS)
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert values(data.held)[:, 0].tolist() == data.labels.tolist()


def test_table_with_names_has_a_column_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,p,q,r\n" + "".join(f"{i},1,2,3.5\n" for i in range(10)))
    data = load(tmp_path / "a.csv", ROWS)
    assert data.labels is not None
    assert (values(data.fit) == [1, 2, 3.5]).all()


def test_table_names_the_inputs_of_a_model_with_several(tmp_path: Path) -> None:
    both = signature(TensorSpec("age", "FP32", (-1, 1)), TensorSpec("count", "INT64", (-1, 1)))
    (tmp_path / "a.csv").write_text("count,age\n" + "".join(f"{i},{i}.5\n" for i in range(9)))
    for feeds in load(tmp_path / "a.csv", both).fit:
        assert feeds["age"].dtype == np.float32
        assert (feeds["age"] == feeds["count"] + 0.5).all()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no rows"),
        ("a,b,c\n", "has no rows"),
        ("a,b,c\n1,2,3\n1,x,3\n", "line 3, column 2 of .* holds 'x'"),
        ("1,2,3\n1,2\n", "line 2 of .* has 2 columns, expected 3"),
        ("1,2\n3,4\n", "has 2 columns of numbers, expected 3"),
        ("1,nan,3\n1,nan,3\n", "holds nan"),
        ("a,\xff\n", "UTF-8"),
    ],
)
def test_table_that_does_not_fit_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadData, match=told):
        load(tmp_path / "a.csv", ROWS)


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A word is a token: w3 has the number 3; 0 fills up."""
    made = Tokenizer(models.WordLevel({f"w{i}" if i else "[PAD]": i for i in range(60)}, unk_token="[PAD]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Row i has i words; its label is i."""
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(" ".join(["w7"] * i) for i in range(1, 41)) + "\n")
    np.save(tmp_path / "a.labels.npy", np.arange(1, 41))
    return path


def test_texts_come_by_length_with_little_padding(text: Path, tokenizer: Path) -> None:
    data = load(text, TOKENS, tokenizer, Limits(batch=4))
    assert data.kind == "text"
    assert data.labels is not None
    lengths = np.concatenate([feeds["attention_mask"].sum(axis=1) for feeds in data.held])
    assert lengths.tolist() == sorted(lengths.tolist()) == data.labels.tolist()
    for feeds in data.held:
        assert {array.shape for array in feeds.values()} == {feeds["input_ids"].shape}
        assert feeds["input_ids"].shape[1] == feeds["attention_mask"].sum(axis=1).max()
        assert ((feeds["input_ids"] == 7) == (feeds["attention_mask"] == 1)).all()
    assert len(data.held.examples[-1].split()) == data.labels[-1]


def test_long_texts_are_cut(text: Path, tokenizer: Path) -> None:
    data = load(text, TOKENS, tokenizer, Limits(tokens_max=8))
    assert max(feeds["input_ids"].shape[1] for feeds in data.fit) == 8


def test_texts_fill_the_length_that_a_model_fixes(text: Path, tokenizer: Path) -> None:
    fixed = signature(*(TensorSpec(name, "INT32", (-1, 32)) for name in ("ids", "mask", "segment_ids", "position_ids")))
    for feeds in load(text, fixed, tokenizer).fit:
        assert {array.shape[1] for array in feeds.values()} == {32}
        assert {array.dtype for array in feeds.values()} == {np.dtype(np.int32)}


def test_labels_of_pairs_follow_their_rows(text: Path, tokenizer: Path) -> None:
    each = np.arange(1, 41)
    np.save(text.with_name("a.labels.npy"), np.add.outer(each * 100, each).astype(np.float64))
    data = load(text, TOKENS, tokenizer)
    assert data.labels is not None
    assert data.held.pairwise
    lengths = [len(example.split()) for example in data.held.examples]
    assert data.labels.tolist() == np.add.outer(np.array(lengths) * 100, lengths).tolist()


def test_model_that_takes_strings_gets_strings(text: Path) -> None:
    strings = signature(TensorSpec("text", "BYTES", (-1, 1)))
    first = next(iter(load(text, strings).fit))["text"]
    assert first.shape[1:] == (1,)
    assert first.dtype == object
    assert first[0, 0].startswith(b"w7")


def test_column_called_text_is_text(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f'"w1, w{i}",{i}\n' for i in range(2, 20)))
    data = load(tmp_path / "a.csv", TOKENS, tokenizer)
    assert data.labels is not None
    assert [int(example.partition(" w")[2]) for example in data.held.examples] == data.labels.tolist()


def test_folder_of_texts_has_a_class_for_each_folder(tmp_path: Path, tokenizer: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for index in range(5):
            (tmp_path / "texts" / name / f"{index}.txt").write_text(f"{name} w{index + 1}\nw2")
    by_name = load(tmp_path / "texts", TOKENS, tokenizer, classes=("good", "bad"))
    assert by_name.labels is not None
    assert [example.startswith("bad") for example in by_name.held.examples] == by_name.labels.astype(bool).tolist()
    with pytest.raises(BadData, match="class 'bad' that the model does not"):
        load(tmp_path / "texts", TOKENS, tokenizer, classes=("good",))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_text_without_a_line_has_no_rows(tmp_path: Path, tokenizer: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(BadData, match="has no rows"):
        load(tmp_path / "a.txt", TOKENS, tokenizer)


def test_text_of_another_encoding_is_told_with_its_place(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café\nb".encode("latin-1"))
    with pytest.raises(BadData, match="at byte 3"):
        load(tmp_path / "a.txt", TOKENS, tokenizer)


def test_text_without_tokenizer_and_for_a_model_of_numbers_is_refused(text: Path, tokenizer: Path) -> None:
    with pytest.raises(BadData, match=r"no tokenizer\.json beside the model"):
        load(text, TOKENS)
    with pytest.raises(BadData, match=r"takes no tokens but x FP32"):
        load(text, ROWS, tokenizer)
    tokenizer.write_text("{}")
    with pytest.raises(BadData, match="no tokenizer that can be read"):
        load(text, TOKENS, tokenizer)


# -- pictures ----------------------------------------------------------------------------------------------------------


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_folder_of_pictures_has_a_class_for_each_folder(tmp_path: Path) -> None:
    for place, name in enumerate(("blue", "red")):
        for index in range(6):
            picture(tmp_path / name / f"{index}.png", (255 * place, 0, 255 * (1 - place)), (6 + index, 4))
    data = load(tmp_path, PICTURES)
    assert data.kind == "pictures"
    assert data.labels is not None
    found = values(data.held, "image")
    assert found.dtype == np.float32
    assert found.shape[1:] == (3, 4, 6)
    assert (found[:, 0] == data.labels[:, None, None]).all()
    scaled = load(tmp_path, PICTURES, limits=Limits(mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)))
    assert set(np.unique(values(scaled.fit, "image"))) == {-1.0, 1.0}


def test_pictures_are_whole_numbers_and_channels_last_where_the_model_wants_it(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"{index}.png", (10, 20, 30), (8, 8))
    last = signature(TensorSpec("image", "UINT8", (-1, -1, -1, 3)))
    data = load(tmp_path, last)
    assert data.labels is None
    assert next(iter(data.fit))["image"][0, 0, 0].tolist() == [10, 20, 30]


def test_pictures_of_many_sizes_come_in_batches_of_one_size(tmp_path: Path) -> None:
    for index in range(12):
        picture(tmp_path / f"{index}.png", (0, 0, 0), (4 + index % 2, 5))
    free = signature(TensorSpec("image", "FP32", (-1, 3, -1, -1)))
    assert {feeds["image"].shape[3] for feeds in load(tmp_path, free).fit} == {4, 5}


def test_bad_pictures_and_folders_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="neither pictures nor texts"):
        load(tmp_path, PICTURES)
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(BadData, match="is no picture that can be read"):
        load(tmp_path, PICTURES)
    with pytest.raises(BadData, match="pictures fit a model of one input"):
        load(tmp_path, ROWS)
    picture(tmp_path / "class/1.png", (0, 0, 0))
    with pytest.raises(BadData, match="both beside and inside"):
        load(tmp_path, PICTURES)


# -- iterators ---------------------------------------------------------------------------------------------------------


def test_iterator_gives_feeds_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows_of_mine.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    for i in range(10):\n"
        "        yield {'x': np.full((2, 3), i, np.float32)}, [i, i]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = load("rows_of_mine:rows", ROWS)
    assert len(data.fit) + len(data.held) == 20
    assert data.labels is not None
    assert values(data.held)[:, 0].tolist() == data.labels.tolist()


def test_endless_iterator_is_read_as_far_as_needed() -> None:
    def endless() -> Iterator[Array]:
        while True:
            yield np.zeros((5, 3), np.float32)

    assert len(load(endless(), ROWS, limits=Limits(rows_max=20)).fit) == 20
    with pytest.raises(BadData, match="more than 100 bytes"):
        load(endless(), ROWS, limits=Limits(bytes_max=100))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "has no rows"),
        ([1], "expected a mapping of x FP32"),
        ([{"y": np.zeros((1, 3), F), "z": np.zeros((1, 3), F)}], "item 0 of list has no array 'x'"),
        ([{"x": np.zeros((1, 3), F)}, {"x": np.zeros((1, 4), F)}], r"item 1 of list has shape \[1, 4\]"),
        ([{"x": np.full((4, 3), np.nan, F)}], "row 0 of 'x' of item 0 of list holds nan"),
        ([({"x": np.zeros((2, 3), F)}, [1])], "1 labels for 2 rows"),
    ],
)
def test_items_that_do_not_fit_are_told_with_their_place(items: list[Any], told: str) -> None:
    with pytest.raises(BadData, match=told):
        load(items, ROWS)


def test_iterator_that_breaks_off_is_a_clear_error() -> None:
    def broken() -> Iterator[Array]:
        yield np.zeros((5, 3), np.float32)
        raise OSError("the disk is gone")

    with pytest.raises(BadData, match="OSError: the disk is gone"):
        load(broken(), ROWS)


def test_data_tells_where_it_came_from(npz: Path) -> None:
    data = load(npz, ROWS)
    assert isinstance(data, Data)
    assert data.source == str(npz)
    assert len(data.sha256()) == 64
