"""A sentence encoder with random weights in sentence-transformers' layout: BERT, then the mean of its states."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'"
WORDS = ["the", "dog", "runs", "over", "grass", "cat", "##ing", "not"]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LONGEST = 24  # tokens, of 40 positions


def write_tokenizer(folder: Path) -> int:
    """Writes tokenizer.json; as in the published file, it cuts and pads, at lengths that are not the model's."""
    vocabulary = [*MARKS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(9)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def write_minilm(folder: Path, **changes: Any) -> Any:
    """A directory with a random model, and that model in transformers; `changes` are of its sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, Any] = {
        "vocab_size": write_tokenizer(folder) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
    }
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**(sizes | changes))).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        spread = 0.3 if parameter.ndim == 1 else 1.5 * parameter.shape[-1] ** -0.5
        parameter.normal_(mean=float("LayerNorm.weight" in name), std=spread)
    model.save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    reading = {"max_seq_length": LONGEST, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(reading))
    return model
