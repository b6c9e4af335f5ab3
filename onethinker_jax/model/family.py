"""The released sizes of Qwen3-VL, for planning without files; the config.json of a checkpoint decides."""

from dataclasses import dataclass

from onethinker_jax.model.config import ConfigError, MoEConfig, Qwen3VLConfig, TextConfig, VisionConfig

_SMALL_VISION = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_layers": (5, 11, 17)}


@dataclass(frozen=True)
class Member:
    """The sizes that differ within the family; all others are `TextConfig`'s and `VisionConfig`'s defaults."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    small_vision: bool = False
    tied: bool = False
    moe: MoEConfig | None = None


# As in the released config.json files, https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct and its siblings.
MEMBERS = {
    "2b": Member(28, 2048, 16, 8, 6144, small_vision=True, tied=True),
    "4b": Member(36, 2560, 32, 8, 9728, small_vision=True, tied=True),
    "8b": Member(36, 4096, 32, 8, 12_288),
    "32b": Member(64, 5120, 64, 8, 25_600),
    "30b-a3b": Member(48, 2048, 32, 4, 6144, moe=MoEConfig(intermediate_size=768)),
    "235b-a22b": Member(94, 4096, 64, 4, 12_288, moe=MoEConfig(intermediate_size=1536)),
}


def family_member(name: str) -> Qwen3VLConfig:
    """The sizes of `name`, such as `8b`; raises ConfigError listing the names there are."""
    if name not in MEMBERS:
        raise ConfigError(f"unknown family member {name!r}; there are: {', '.join(MEMBERS)}")
    member = MEMBERS[name]
    vision = _SMALL_VISION if member.small_vision else {}
    return Qwen3VLConfig(
        text=TextConfig(
            hidden_size=member.width,
            intermediate_size=member.feed_forward,
            num_layers=member.layers,
            num_heads=member.heads,
            num_kv_heads=member.kv_heads,
            moe=member.moe,
        ),
        vision=VisionConfig(out_hidden_size=member.width, **vision),
        tie_word_embeddings=member.tied,
    )


def family_name(sizes: Qwen3VLConfig) -> str | None:
    """The released size, such as `8b`, whose layers these are; None where they are another model's."""
    text = sizes.text
    for name, member in MEMBERS.items():
        if (text.num_layers, text.hidden_size, text.num_heads) == (member.layers, member.width, member.heads):
            return name
    return None
