"""Sizes of the Qwen3-VL family, dense and mixture-of-experts, read from and written to a HF `config.json`.

Both layouts of that file are read: transformers 5 (`rope_parameters`) and 4.57 (`rope_scaling` and
`rope_theta`). The 4.57 layout is written, because vLLM and both versions of transformers read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onethinker_jax.errors import UserError
from onethinker_jax.model.directory import directory_error, lfs_error

_DENSE, _MOE = "qwen3_vl", "qwen3_vl_moe"
_TYPES = {  # model_type -> architecture
    _DENSE: "Qwen3VLForConditionalGeneration",
    _MOE: "Qwen3VLMoeForConditionalGeneration",
}


class ConfigError(UserError, ValueError):
    """A `config.json` that this package does not serve; the message names the field."""


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower: `depth` blocks of width `hidden_size` over patches of 16 x 16 pixels of two frames.

    `deepstack_layers` are the blocks whose output is merged and added to the first language layers; merge blocks are
    `merge_size` x `merge_size` patches. The defaults are the 8B's. Raises ConfigError naming sizes that do not fit
    each other.
    """

    depth: int = 27
    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_heads: int = 16
    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    in_channels: int = 3
    out_hidden_size: int = 4096
    num_position_embeddings: int = 2304
    deepstack_layers: tuple[int, ...] = (8, 16, 24)
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        _divides("vision hidden_size", self.hidden_size, "num_heads", self.num_heads)
        if self.head_dim % 4:
            raise ConfigError(f"vision head size {self.head_dim} must be a multiple of 4 (2-D rotary)")
        side = round(self.num_position_embeddings**0.5)
        if side * side != self.num_position_embeddings:
            raise ConfigError(f"num_position_embeddings {self.num_position_embeddings} is not a square")
        if any(not 0 <= layer < self.depth for layer in self.deepstack_layers):
            raise ConfigError(f"deepstack_visual_indexes {self.deepstack_layers} outside depth {self.depth}")
        if sorted(set(self.deepstack_layers)) != list(self.deepstack_layers):
            raise ConfigError(f"deepstack_visual_indexes {self.deepstack_layers} do not ascend")

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the tower."""
        return self.hidden_size // self.num_heads

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch: channels x temporal x side x side."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def grid_side(self) -> int:
        """Side of the square table of learned position embeddings."""
        return round(self.num_position_embeddings**0.5)


@dataclass(frozen=True)
class MoEConfig:
    """A layer's experts: each token passes through `experts_per_token` of them, each `intermediate_size` wide.

    The defaults are the 30B-A3B's. Raises ConfigError naming a number below 1, or too many experts for a token.
    """

    num_experts: int = 128
    experts_per_token: int = 8
    intermediate_size: int = 768

    def __post_init__(self) -> None:
        for name in ("num_experts", "experts_per_token", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{_MOE_FIELDS[name]} {getattr(self, name)} must be at least 1")
        if self.experts_per_token > self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok {self.experts_per_token} exceeds num_experts {self.num_experts}"
            )


_MOE_FIELDS = {  # ours -> theirs
    "num_experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "intermediate_size": "moe_intermediate_size",
}


@dataclass(frozen=True)
class TextConfig:
    """The decoder. `mrope_section` splits the H/2 frequencies of a head over (time, height, width).

    With `moe` every layer has experts; `intermediate_size` is then kept for `config.json` and sizes no weight. The
    defaults are the 8B's. Raises ConfigError naming sizes that do not fit each other.
    """

    vocab_size: int = 151_936
    hidden_size: int = 4096
    intermediate_size: int = 12_288
    num_layers: int = 36
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope_theta: float = 5_000_000.0
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    max_position_embeddings: int = 262_144
    moe: MoEConfig | None = None

    def __post_init__(self) -> None:
        _divides("num_attention_heads", self.num_heads, "num_key_value_heads", self.num_kv_heads)
        if sum(self.mrope_section) != self.head_dim // 2:
            raise ConfigError(
                f"mrope_section {self.mrope_section} must add up to half of head_dim {self.head_dim}"
            )


@dataclass(frozen=True)
class Qwen3VLConfig:
    """One member of the family, with the ids of its placeholder and marker tokens.

    Raises ConfigError where the tower does not fit the decoder.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    tie_word_embeddings: bool = False
    image_token_id: int = 151_655
    video_token_id: int = 151_656
    vision_start_token_id: int = 151_652
    vision_end_token_id: int = 151_653

    def __post_init__(self) -> None:
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise ConfigError(
                f"vision out_hidden_size {self.vision.out_hidden_size} differs from text hidden_size "
                f"{self.text.hidden_size}"
            )
        if len(self.vision.deepstack_layers) > self.text.num_layers:
            raise ConfigError(
                f"{len(self.vision.deepstack_layers)} DeepStack features need as many language layers, "
                f"not {self.text.num_layers}"
            )

    @classmethod
    def from_directory(cls, path: str | Path) -> "Qwen3VLConfig":
        """Reads `<path>/config.json`; raises ConfigError or FileNotFoundError naming the file."""
        if error := directory_error(Path(path)):
            raise (ConfigError if Path(path).exists() else FileNotFoundError)(f"{path}: {error}")
        file = Path(path) / "config.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; is this a Hugging Face model directory?")
        if error := lfs_error(file):
            raise ConfigError(f"{file}: {error}")
        try:
            return cls.from_hf(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:  # also ConfigError, and what is no JSON or no text
            raise ConfigError(f"{file}: {error}") from error

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any]) -> "Qwen3VLConfig":
        """From the parsed `config.json` of a Qwen3-VL, dense or MoE, in either layout.

        Raises ConfigError naming a field that is missing, of the wrong type, or not served.
        """
        if error := family_error(hf):
            raise ConfigError(error)
        if hf.get("quantization_config"):
            raise ConfigError("quantization_config is not served; expected unquantised weights")
        for section in ("text_config", "vision_config"):
            if not isinstance(hf.get(section), Mapping):
                raise ConfigError(f"{section} is missing")
        return cls(
            text=_text_config(hf, experts=hf["model_type"] == _MOE),
            vision=_vision_config(hf["vision_config"]),
            tie_word_embeddings=bool(
                hf.get("tie_word_embeddings", hf["text_config"].get("tie_word_embeddings", False))
            ),
            image_token_id=_whole("", hf, "image_token_id", 151_655),
            video_token_id=_whole("", hf, "video_token_id", 151_656),
            vision_start_token_id=_whole("", hf, "vision_start_token_id", 151_652),
            vision_end_token_id=_whole("", hf, "vision_end_token_id", 151_653),
        )

    def to_hf(self, *, dtype: str = "float32", extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The `config.json` (4.57 layout) as a dict; `extra` adds top-level keys such as token ids."""
        text, vision = self.text, self.vision
        model_type = _DENSE if text.moe is None else _MOE
        return {
            "architectures": [_TYPES[model_type]],
            "model_type": model_type,
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "text_config": {
                "model_type": f"{model_type}_text",
                "vocab_size": text.vocab_size,
                "hidden_size": text.hidden_size,
                "intermediate_size": text.intermediate_size,
                "num_hidden_layers": text.num_layers,
                "num_attention_heads": text.num_heads,
                "num_key_value_heads": text.num_kv_heads,
                "head_dim": text.head_dim,
                "hidden_act": "silu",
                "attention_bias": False,
                "attention_dropout": 0.0,
                "rms_norm_eps": text.rms_norm_eps,
                "rope_theta": text.rope_theta,
                "rope_scaling": {
                    "rope_type": "default",
                    "mrope_interleaved": True,
                    "mrope_section": list(text.mrope_section),
                },
                "max_position_embeddings": text.max_position_embeddings,
                "tie_word_embeddings": self.tie_word_embeddings,  # transformers 4.57 looks here
                "use_cache": True,
                "torch_dtype": dtype,
                **_experts_to_hf(text.moe),
            },
            "vision_config": {
                "model_type": model_type,
                "depth": vision.depth,
                "hidden_size": vision.hidden_size,
                "intermediate_size": vision.intermediate_size,
                "num_heads": vision.num_heads,
                "hidden_act": "gelu_pytorch_tanh",
                "patch_size": vision.patch_size,
                "temporal_patch_size": vision.temporal_patch_size,
                "spatial_merge_size": vision.merge_size,
                "in_channels": vision.in_channels,
                "out_hidden_size": vision.out_hidden_size,
                "num_position_embeddings": vision.num_position_embeddings,
                "deepstack_visual_indexes": list(vision.deepstack_layers),
            },
            **(extra or {}),
        }


def family_error(hf: Any) -> str | None:
    """Why a parsed `config.json` describes no model that is served; None if it describes one."""
    if not isinstance(hf, Mapping):
        return "holds no JSON object"
    if hf.get("model_type") in _TYPES:
        return None
    made = hf.get("architectures")
    name = f" ({made[0]})" if isinstance(made, list) and made else ""
    what = "" if "vision_config" in hf else ", a model without vision_config,"
    return (
        f"model_type {hf.get('model_type')!r}{name}{what} is not served; expected one of {', '.join(_TYPES)}"
    )


def _text_config(hf: Mapping[str, Any], *, experts: bool) -> TextConfig:
    text = hf["text_config"]
    _need("text_config", text, "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    _need("text_config", text, "num_attention_heads")
    # transformers' defaults where head_dim is not said: a constant for dense models, the usual quotient for MoE
    head_dim = text["hidden_size"] // text["num_attention_heads"] if experts else 128
    _require(text, "hidden_act", "silu")
    _require(text, "attention_bias", False)
    theta, section = _rope(hf)
    return TextConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=text["num_attention_heads"],
        num_kv_heads=_whole("text_config", text, "num_key_value_heads", text["num_attention_heads"]),
        head_dim=_whole("text_config", text, "head_dim", head_dim),
        rms_norm_eps=_number("text_config", text, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        mrope_section=section,
        max_position_embeddings=_whole("text_config", text, "max_position_embeddings", 262_144),
        moe=_experts(text) if experts else None,
    )


def _rope(hf: Mapping[str, Any]) -> tuple[float, tuple[int, int, int]]:
    """`rope_theta` and `mrope_section`, found where transformers 5 finds them.

    `rope_scaling` goes before `rope_parameters`, and the `rope_theta` inside of the one that counts goes before the
    one beside it. Outside of `text_config` transformers reads neither: a different value there is refused.
    """
    text = hf["text_config"]
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise ConfigError(f"rope settings {rope!r} are not served; expected one set for all layers")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope"):
        raise ConfigError(f"rope_type {kind!r} is not served; expected 'default'")
    _require(rope, "mrope_interleaved", True)
    theta = rope["rope_theta"] if "rope_theta" in rope else text.get("rope_theta", 500_000.0)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
        raise ConfigError(f"text_config: rope_theta {theta!r} is not a number above 0")
    section = rope.get("mrope_section", (24, 20, 20))
    if not isinstance(section, list | tuple) or len(section) != 3 or not all(map(_is_whole, section)):
        raise ConfigError(f"text_config: mrope_section {section!r} is not three whole numbers")
    found = {"rope_theta": float(theta), "mrope_section": list(section)}
    for outer in (hf, hf.get("rope_scaling"), hf.get("rope_parameters")):
        if not isinstance(outer, Mapping):
            continue
        for name, value in found.items():
            if outer.get(name, value) != value:
                raise ConfigError(
                    f"{name} {outer[name]!r} stands outside of text_config, where it is not read and {value!r} "
                    "counts; write it into text_config"
                )
    return float(theta), (section[0], section[1], section[2])


def _experts(text: Mapping[str, Any]) -> MoEConfig:
    if "num_experts" not in text and "num_local_experts" in text:  # as transformers 5 writes it
        text = {**text, "num_experts": text["num_local_experts"]}
    _need("text_config", text, *_MOE_FIELDS.values())
    # A scan needs equal layers, and transformers normalises the chosen experts' weights whatever the file says.
    if text.get("mlp_only_layers"):
        raise ConfigError(f"mlp_only_layers {text['mlp_only_layers']!r} is not served; expected none")
    _require(text, "decoder_sparse_step", 1)
    _require(text, "norm_topk_prob", True)
    return MoEConfig(**{ours: text[theirs] for ours, theirs in _MOE_FIELDS.items()})


def _experts_to_hf(moe: MoEConfig | None) -> dict[str, Any]:
    if moe is None:
        return {}
    return {
        **{theirs: getattr(moe, ours) for ours, theirs in _MOE_FIELDS.items()},
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _vision_config(vision: Mapping[str, Any]) -> VisionConfig:
    _need(
        "vision_config", vision, "depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size"
    )
    _require(vision, "hidden_act", "gelu_pytorch_tanh")
    layers = vision.get("deepstack_visual_indexes", (8, 16, 24))
    if not isinstance(layers, list | tuple) or not all(map(_is_whole, layers)):
        raise ConfigError(f"vision_config.deepstack_visual_indexes {layers!r} are not whole numbers")
    return VisionConfig(
        depth=vision["depth"],
        hidden_size=vision["hidden_size"],
        intermediate_size=vision["intermediate_size"],
        num_heads=vision["num_heads"],
        patch_size=_whole("vision_config", vision, "patch_size", 16),
        temporal_patch_size=_whole("vision_config", vision, "temporal_patch_size", 2),
        merge_size=_whole("vision_config", vision, "spatial_merge_size", 2),
        in_channels=_whole("vision_config", vision, "in_channels", 3),
        out_hidden_size=vision["out_hidden_size"],
        num_position_embeddings=_whole("vision_config", vision, "num_position_embeddings", 2304),
        deepstack_layers=tuple(layers),
    )


def _need(section: str, fields: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not _is_whole(fields.get(name)):
            found = f"is {fields[name]!r}, not a whole number" if name in fields else "is missing"
            raise ConfigError(f"{section}.{name} {found}")


def _whole(section: str, fields: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number; `default` where the field is missing or null."""
    value = default if fields.get(name) is None else fields[name]
    if not _is_whole(value):
        raise ConfigError(f"{section}{'.' if section else ''}{name} is {value!r}, not a whole number")
    return value


def _number(section: str, fields: Mapping[str, Any], name: str, default: float) -> float:
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{section}.{name} is {value!r}, not a number")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if divisor <= 0 or value % divisor:
        raise ConfigError(f"{name} {value} is not a multiple of {divisor_name} {divisor}")


def _require(section: Mapping[str, Any], key: str, expected: Any) -> None:
    if section.get(key, expected) != expected:
        raise ConfigError(f"{key} {section[key]!r} is not served; expected {expected!r}")
