"""Run in the environment of `make llm-export`: SmolLM2, or a tiny model of random weights, as a Hugging Face folder.

made_huggingface.py GGUF FOLDER            the model of the file
made_huggingface.py GGUF FOLDER tiny       its tokenizer, and a Llama of two layers of random weights
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STEERING = 3
"""llama.cpp's type of tokens that are no text."""


def main(path: Path, folder: Path, tiny: bool) -> None:
    import torch
    import transformers
    from gguf import GGUFReader

    folder.mkdir(parents=True)
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    steering = [
        (number, token)
        for number, (token, kind) in enumerate(zip(tokens, fields["tokenizer.ggml.token_type"].contents(), strict=True))
        if kind == STEERING
    ]
    merges = [each.split(" ", 1) for each in fields["tokenizer.ggml.merges"].contents()]
    ends = tokens[fields["tokenizer.ggml.eos_token_id"].contents()]
    begins = tokens[fields["tokenizer.ggml.bos_token_id"].contents()]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(tokens, merges, steering)), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": begins,
                "eos_token": ends,
                "pad_token": ends,
                "clean_up_tokenization_spaces": False,
                "model_max_length": 8192,
            }
        )
    )
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"].contents(), "utf-8")
    if tiny:
        torch.manual_seed(7)
        config = transformers.LlamaConfig(
            vocab_size=len(tokens), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True,
            bos_token_id=tokens.index(begins), eos_token_id=tokens.index(ends),
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    model.save_pretrained(folder)


def tokenizer(tokens: list[str], merges: list[list[str]], steering: list[tuple[int, str]]) -> dict[str, object]:
    """`tokenizer.json` of a byte-level BPE that takes digits one by one, as SmolLM's does."""
    bytes_of_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for number, token in steering
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_of_text],
        },
        "post_processor": None,
        "decoder": bytes_of_text,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ["tiny"])
