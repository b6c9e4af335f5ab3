"""What is measured, in order, and at which sizes: plain data, which the parent reads without JAX or torch."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.train.config.model import ModelSettings
from onethinker_jax.train.config.optimizer import BatchSettings, OptimizerSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.config.sft import SFTSettings

Library = Literal["jax", "torch"]
Part = Literal["ceilings", "attention", "training", "prefill", "decode", "RL step"]


@dataclass(frozen=True)
class Scale:
    """Sizes that all cases of a run share."""

    unit: int = 2048  # tokens of a packed example; a prompt has one image in each
    side: int = 64  # patches along an image: 1,024 pixels, 1,024 of the unit's tokens
    group: int = 8  # samples of a prompt
    new_tokens: int = 256  # of a sample; its last decode block is measured
    decode_block: int = 32
    repeats: int = 3
    matmul: int = 8192  # rows and columns of the matrices that the ceiling is measured with
    copied: int = 4 << 30  # bytes that are read, and written, for the ceiling of the memory
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    rl_prompts: int = 16
    rl_new_tokens: int = 512
    rl_image: int = 512  # pixels along an image

    def patches(self, tokens: int) -> int:
        """Patches of the images of `tokens` tokens."""
        return tokens // self.unit * self.side**2


FULL = Scale()
TINY = Scale(
    unit=64,
    side=8,
    group=2,
    new_tokens=8,
    decode_block=4,
    repeats=1,
    matmul=128,
    copied=1 << 16,
    dtype="float32",
    rl_prompts=1,
    rl_new_tokens=4,
    rl_image=64,
)


@dataclass(frozen=True)
class Case:
    """One measurement. `seconds` is what it may take on an H200, compilation included: a guess on the safe side."""

    part: Part
    seconds: float
    model: str = ""
    tokens: int = 0  # of a row, or of a prompt
    samples: int = 0
    kind: str = ""  # of a row of attention; or what the peer does with its programs
    library: Library = "jax"

    @property
    def size(self) -> str:
        """The case within its part; the same for both libraries."""
        kind = self.kind if self.part == "attention" else ""
        counts = (
            f"{self.samples:,} samples" * bool(self.samples),
            f"{self.tokens:,} tokens" * bool(self.tokens),
        )
        return ", ".join(part for part in (self.model, kind, *counts) if part)

    @property
    def name(self) -> str:
        """The case as messages name it."""
        peer = "transformers" if self.library == "torch" else ""
        return ", ".join(part for part in (self.part, peer, self.kind if peer else "", self.size) if part)


def full_cases() -> list[Case]:
    """The most telling ones first: those at the end are left out where time is short."""
    lengths = (4096, 8192, 16_384)
    prompts = (2048, 8192, 16_384)
    kinds = ("text, one example", "text, packed", "text, 8 samples of a prompt", "vision, frames of 1,024")
    training = Case("training", 30, "2b")
    decode = Case("decode", 12, "8b")
    theirs = Case("training", 20, "2b", library="torch", kind="eager")
    their_prefill = replace(theirs, part="prefill", model="8b")
    their_decode = replace(theirs, part="decode", model="8b", samples=8)
    return [
        Case("ceilings", 10),
        *(Case("attention", 8, tokens=8192, kind=kind) for kind in kinds),
        *(replace(training, tokens=tokens) for tokens in lengths),
        *(Case("prefill", 12, "8b", tokens) for tokens in prompts),
        *(replace(decode, tokens=tokens, samples=samples) for samples in (8, 64, 256) for tokens in prompts),
        replace(their_prefill, seconds=30, tokens=2048),
        *(replace(their_decode, tokens=tokens) for tokens in (2048, 8192)),
        replace(theirs, tokens=4096),
        *(replace(training, model="8b", seconds=40, tokens=tokens) for tokens in lengths),
        Case("RL step", 80, "2b"),
        *(replace(training, model="4b", seconds=40, tokens=tokens) for tokens in lengths),
        replace(their_prefill, seconds=30, tokens=8192),
        replace(theirs, tokens=16_384),
        replace(their_decode, seconds=90, tokens=2048, kind="compiled"),
        replace(their_decode, seconds=40, tokens=2048, samples=64),
        replace(their_prefill, seconds=30, tokens=16_384),
        replace(their_decode, seconds=40, tokens=16_384),
    ]


def tiny_cases() -> list[Case]:
    """Every part once, by each library that has it, at sizes that a CPU takes in seconds."""
    return [
        Case("ceilings", 0),
        Case("attention", 0, tokens=128, kind="text, one example"),
        Case("training", 0, "tiny", 128),
        Case("prefill", 0, "tiny", 64),
        Case("decode", 0, "tiny", 64, 4),
        Case("RL step", 0, "tiny"),
        Case("training", 0, "tiny", 128, library="torch", kind="eager"),
        Case("prefill", 0, "tiny", 64, library="torch", kind="eager"),
        Case("decode", 0, "tiny", 64, 4, library="torch", kind="eager"),
    ]


@dataclass(frozen=True)
class Run:
    """The sizes and cases of one call of the script."""

    scale: Scale = FULL
    cases: list[Case] = field(default_factory=full_cases)


def run_of(*, tiny: bool) -> Run:
    """At full size, or tiny."""
    return Run(TINY, tiny_cases()) if tiny else Run()


TINY_MODEL: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 16,
    "vision_depth": 2,
    "vision_hidden_size": 32,
    "vision_intermediate_size": 48,
    "vision_heads": 2,
    "vision_grid": 8,
    "deepstack_layers": (0,),
    "tie_word_embeddings": True,
}
# model -> how its training fits one GPU of 141 GB. The 8B's float32 weights, moments and gradients would fill it alone.
KEPT: dict[str, dict[str, Any]] = {
    "tiny": {"remat": "none"},
    "2b": {"remat": "dots"},
    "4b": {"remat": "full"},
    "8b": {"remat": "full", "master_dtype": "bfloat16"},
}


def model_settings(model: str, scale: Scale) -> ModelSettings:
    """The settings of the case's model."""
    sizes = TINY_MODEL if model == "tiny" else {"family": model}
    return ModelSettings(**sizes, **KEPT[model], compute_dtype=scale.dtype)


def training_config(case: Case, scale: Scale) -> TrainConfig:
    """SFT of one packed row an update; the vision tower is trained too."""
    model = model_settings(case.model, scale)
    optimizer = OptimizerSettings(1e-5, momentum_dtype=model.master_dtype)
    batch = BatchSettings(1, case.tokens, scale.patches(case.tokens))
    sft = SFTSettings(steps=1, accumulate=1, batch=batch, optimizer=optimizer, train_vision=True)
    return TrainConfig(name="gpu", model=model, sft=sft, rl=RLSettings(steps=0))


def sampling_config(case: Case, scale: Scale) -> TrainConfig:
    """RL whose rollouts sample all prompts of the case together, `scale.group` samples of each."""
    prompts, patches = max(case.samples // scale.group, 1), scale.patches(case.tokens)
    rollout = SamplerSettings(
        prompt_slots=prompts,
        prompt_tokens=case.tokens,
        prompt_patches=patches,
        max_new_tokens=scale.new_tokens,
        group_size=scale.group,
        prefill_rows=1,
        decode_block=scale.decode_block,
    )
    batch = BatchSettings(1, case.tokens + scale.group * scale.new_tokens, patches)
    rl = RLSettings(steps=1, prompts_per_step=prompts, num_minibatches=1, rollout=rollout, batch=batch)
    return TrainConfig(name="gpu", model=model_settings(case.model, scale), sft=SFTSettings(steps=0), rl=rl)


def rl_config(model: str, scale: Scale, prompt: tuple[int, int]) -> TrainConfig:
    """A whole step on prompts of up to (tokens, patches): a row holds a whole group, every group is kept."""
    tokens, patches = prompt
    rollout = SamplerSettings(
        prompt_tokens=tokens,
        prompt_patches=patches,
        max_new_tokens=scale.rl_new_tokens,
        group_size=scale.group,
        prefill_rows=min(scale.rl_prompts, 8),
    )
    rl = RLSettings(
        steps=2,
        prompts_per_step=scale.rl_prompts,
        num_minibatches=min(scale.rl_prompts, 2),
        accuracy_low=-1.0,
        accuracy_high=2.0,
        rollout=rollout,
        batch=BatchSettings(1, tokens + scale.group * scale.rl_new_tokens, patches),
    )
    return TrainConfig(name="gpu", model=model_settings(model, scale), sft=SFTSettings(steps=0), rl=rl)
