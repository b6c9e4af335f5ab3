"""POLAR's network: an InternLM2 body and a bias-free scalar head read at the last token, in plain torch.

The names of the modules are those of the published weights, so that a directory loads without a table. It
departs from InternLM2's published code in two places. Under dynamic NTK scaling each row has the base of its
own length, not of the longest row of its batch, so that a score does not depend on who it is batched with.
And the head is float32 whatever the body is.

Letters: B batch, T tokens, N query heads, K key-value heads, G = N / K, H head size, D width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from onethinker_jax.rewards.backends.polar_tokenizer import REWARD_TOKEN_ID
from onethinker_jax.rewards.backends.types import BackendError


@dataclass(frozen=True)
class InternLM2Config:
    """The sizes in a directory's `config.json`. `rope_scaling` is None, `linear` or `dynamic`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: str | None = None
    rope_factor: float = 1.0
    bias: bool = False
    reward_token_id: int = REWARD_TOKEN_ID

    @classmethod
    def read(cls, directory: Path) -> InternLM2Config:
        """Raises BackendError for a missing file, another kind of model, or a setting not known here."""
        path = directory / "config.json"
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BackendError(f"POLAR's configuration is missing: there is no file {path}") from None
        except ValueError as error:
            raise BackendError(f"{path} is not JSON: {error}") from error
        if values.get("model_type") != "internlm2" or values.get("hidden_act", "silu") != "silu":
            kind = f"{values.get('model_type')!r} with {values.get('hidden_act', 'silu')!r}"
            raise BackendError(f"{path} describes {kind}, not POLAR's 'internlm2' with 'silu'")
        scaling = values.get("rope_scaling") or {}
        kind = scaling.get("rope_type", scaling.get("type"))
        if kind not in (None, "linear", "dynamic"):
            raise BackendError(f"{path} has the rope_scaling {kind!r}: linear and dynamic are known")
        try:
            return cls(
                vocab_size=values["vocab_size"],
                hidden_size=values["hidden_size"],
                intermediate_size=values["intermediate_size"],
                num_hidden_layers=values["num_hidden_layers"],
                num_attention_heads=values["num_attention_heads"],
                num_key_value_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
                max_position_embeddings=values["max_position_embeddings"],
                rms_norm_eps=values["rms_norm_eps"],
                rope_theta=values["rope_theta"],
                rope_scaling=kind,
                rope_factor=scaling.get("factor", 1.0),
                bias=values.get("bias", False),
                reward_token_id=values.get("reward_token_id", REWARD_TOKEN_ID),
            )
        except KeyError as error:
            raise BackendError(f"{path} lacks {error.args[0]}") from None

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · weight, the quotient in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[…, size] in and out."""
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention; `wqkv` holds [K, G + 2, H, D]: a group's queries, its key and its value."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // self.kv_heads
        self.head_size = config.head_size
        rows = self.kv_heads * (self.group + 2) * self.head_size
        self.wqkv = nn.Linear(config.hidden_size, rows, bias=config.bias)
        self.wo = nn.Linear(config.num_attention_heads * self.head_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """[B, T, D]; `mask` bool [B, 1, T, T] of the keys each query sees, None for causal."""
        batch, length, _ = x.shape
        qkv = self.wqkv(x).view(batch, length, self.kv_heads, self.group + 2, self.head_size)
        queries = qkv[..., : self.group, :].flatten(2, 3).transpose(1, 2)
        keys, values = (
            qkv[..., self.group + offset, :].repeat_interleave(self.group, dim=2).transpose(1, 2)
            for offset in (0, 1)
        )
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) · w3 x)."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w3 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.w2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] in and out."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """[B, T, D] in and out; `rotation` and `mask` as for `Attention`."""
        x = x + self.attention(self.attention_norm(x), rotation, mask)
        return x + self.feed_forward(self.ffn_norm(x))


class InternLM2Body(nn.Module):
    """Token ids -> hidden states."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Tokens int [B, T] -> [B, T, D]; `real`, bool [B, T], is false where there is padding, on either side."""
        x = self.tok_embeddings(tokens)
        rotation = tuple(part.to(x.dtype) for part in rotations(self.config, real))
        mask = None
        if not real[:, 0].all():  # no token sees padding that comes after it: then causal is enough
            length = real.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
            itself = torch.eye(length, dtype=torch.bool, device=real.device)  # else padding sees nothing: NaN
            mask = (causal & real[:, None, None, :]) | itself
        for layer in self.layers:
            x = layer(x, rotation, mask)
        return self.norm(x)


class PolarModel(nn.Module):
    """The reward model: one score a row."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.config = config
        self.model = InternLM2Body(config)
        self.v_head = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Scores, float32 [B], read at each row's last real token; tokens int [B, T], `real` bool [B, T]."""
        hidden = self.model(tokens, real)
        last = (real * torch.arange(real.shape[1], device=real.device)).argmax(1)
        return self.v_head(hidden[torch.arange(len(last), device=last.device), last].float()).squeeze(1)


def rotations(config: InternLM2Config, real: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [B, 1, T, H], of RoPE (Su et al. 2021); positions count real tokens only.

    `linear` divides the positions by the factor f. `dynamic` (NTK-aware) raises the base θ, for a row of more
    tokens n than the m it was trained for, to θ · (f · n / m − (f − 1))^(H / (H − 2)).
    """
    size, factor, trained = config.head_size, config.rope_factor, config.max_position_embeddings
    positions = (real.cumsum(1) - 1).clamp(min=0).float()
    lengths = real.sum(1).double()
    base = torch.full_like(lengths, config.rope_theta)
    if config.rope_scaling == "linear":
        positions = positions / factor
    elif config.rope_scaling == "dynamic":
        stretch = (factor * lengths.clamp(min=trained) / trained - (factor - 1)) ** (size / (size - 2))
        base = base * stretch
    exponents = torch.arange(0, size, 2, device=real.device).double() / size
    frequencies = (1.0 / base[:, None] ** exponents).float()
    angles = positions[:, :, None] * frequencies[:, None, :]
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """[B, heads, T, H]; the first half of a head is paired with the second."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-second, first), dim=-1) * sines


def load_polar(directory: Path, device: torch.device, dtype: torch.dtype) -> PolarModel:
    """The model of a directory with `config.json` and safetensors, in one file or by an index.

    Raises BackendError for what is missing, or for weights that do not fit the configuration.
    """
    config = InternLM2Config.read(directory)
    weights: dict[str, Tensor] = {}
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the reader is no mapping
                    kind = torch.float32 if name == "v_head.weight" else dtype
                    weights[name] = file.get_tensor(name).to(device, kind)
        except (OSError, SafetensorError) as error:
            raise BackendError(f"cannot read POLAR's weights {path}: {error}") from error
    weights = {name: value for name, value in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    with torch.device("meta"):
        model = PolarModel(config)
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"the weights in {directory} do not fit its config.json: {reason:.500}") from None
    return model.eval().requires_grad_(False)


def _weight_files(directory: Path) -> list[Path]:
    """The single file, or those of the index; of both the single file, as in transformers."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        files = [single]
    else:
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BackendError(f"{index} is not an index of safetensors files") from None
        files = [directory / name for name in names]
    for path in files:
        if not path.is_file():
            raise BackendError(f"POLAR's weights are missing: there is no file {path}")
    return files
